"""Sampling explanations: prefill once, then a token loop that never leaves the device.

Draws are the model's own distribution (temperature only: no top-p, top-k or repetition penalty, whatever a
checkpoint's generation_config says). Each sample has its own random stream, folded from its id, so a draw depends
neither on the batch it is in nor on where it runs.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.models.contraction import einsum
from nla_jax.models.transformer import empty_cache, unembedding
from nla_jax.models.verbalizer import Verbalizer
from nla_jax.parallel import precision, sharding


class Rollout(NamedTuple):
  """Sampled answers.

  Attributes:
    tokens: [batch, max_new_tokens] int32; after the stop token, the stop token again.
    logprobs: [batch, max_new_tokens] float32, log-probabilities at the sampling temperature; 0 after the stop.
    lengths: [batch] int32, sampled tokens, the stop token included.
    finished: [batch] bool, False where the cap was hit.
  """

  tokens: jax.Array
  logprobs: jax.Array
  lengths: jax.Array
  finished: jax.Array


def draw(logits, uniform):
  """One categorical draw a row by inverting the distribution function in two levels.

  One uniform number a row instead of one Gumbel a vocabulary entry: at a vocabulary of 49k and batch 64 the random
  bits alone would cost as much as the unembedding.

  Args:
    logits: [batch, vocabulary] float32.
    uniform: [batch] float32 in [0, 1).

  Returns:
    token [batch] int32 and its log-probability [batch].
  """
  batch, vocabulary = logits.shape
  width = 256
  blocks = -(-vocabulary // width)
  top = jnp.max(logits, axis=-1, keepdims=True)
  weights = jnp.pad(jnp.exp(logits - top), ((0, 0), (0, blocks * width - vocabulary))).reshape(batch, blocks, width)
  sums = jnp.sum(weights, axis=-1)
  before = jnp.cumsum(sums, axis=-1)
  total = before[:, -1]
  level = uniform * total
  block = jnp.minimum(jnp.sum(before <= level[:, None], axis=-1), blocks - 1)
  inside = level - jnp.where(block > 0, jnp.take_along_axis(before, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
  row = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
  running = jnp.cumsum(row, axis=-1)
  # Rounding may leave `inside` at or above the block's last sum: the last entry with weight is then meant.
  last = width - 1 - jnp.argmax(row[:, ::-1] > 0, axis=-1)
  offset = jnp.minimum(jnp.sum(running <= inside[:, None], axis=-1), last)
  weight = jnp.take_along_axis(row, offset[:, None], axis=1)[:, 0]
  return (block * width + offset).astype(jnp.int32), jnp.log(weight) - jnp.log(total)


def decode_copy(params, dtype):
  """The parameters as the token loop reads them: matrices rounded to the compute dtype and whole over `fsdp`, once
  and not every token."""
  return sharding.decode_layout(jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params))


@functools.partial(jax.jit, static_argnames=("model", "stop_id", "max_new_tokens", "greedy"))
def sample(params, before, after, vectors, key, sample_ids, *, model: Verbalizer, stop_id: int, max_new_tokens: int,
           temperature: float = 1.0, greedy: bool = False) -> Rollout:
  """Explanations of a batch of activations.

  Args:
    params: the AV's.
    before: [P] int32, the prompt up to the slot.
    after: [A] int32, the prompt from the slot on.
    vectors: [batch, d_model] raw activations.
    key: random key of this call.
    sample_ids: [batch] int32, which stream each row draws from.
    model: the AV.
    stop_id: token that ends an answer.
    max_new_tokens: cap on sampled tokens.
    temperature: divides the logits.
    greedy: take the likeliest token; log-probabilities stay those of the model.
  """
  batch = vectors.shape[0]
  params = decode_copy(params, model.dtype)
  apply = lambda method, *arguments: model.apply({"params": params}, *arguments, method=method)
  # XLA's CPU backend rewrites a whole bfloat16 buffer to update a slice of it (half of a decoding step, measured).
  cache_dtype = jnp.float32 if precision.platform() == "cpu" else model.dtype
  cache = empty_cache(model.architecture, batch, after.shape[0] + max_new_tokens, cache_dtype)
  hidden, cache = apply("prefill", before, after, vectors, cache)
  matrix = unembedding(params["transformer"])
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(sharding.place(sample_ids, "batch"))

  def choose(hidden, step):
    logits = sharding.place(einsum("bd,vd->bv", hidden, matrix, model.dtype, "batch", "vocabulary"), "batch", None)
    if greedy:
      token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
      return token, jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)[:, 0]
    uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, step)))(keys)
    return draw(logits / temperature, uniform)

  def body(state):
    step, hidden, cache, done, tokens, logprobs, lengths = state
    token, logprob = choose(hidden, step)
    token, logprob = jnp.where(done, stop_id, token), jnp.where(done, 0.0, logprob)
    here = jnp.arange(max_new_tokens) == step
    tokens, logprobs = jnp.where(here, token[:, None], tokens), jnp.where(here, logprob[:, None], logprobs)
    lengths = lengths + ~done
    hidden, cache = apply("step", token, cache)
    return step + 1, hidden, cache, done | (token == stop_id), tokens, logprobs, lengths

  going = lambda state: (state[0] < max_new_tokens) & ~jnp.all(state[3])
  place = lambda x: sharding.place(x, "batch", *(None,) * (x.ndim - 1))
  shape = (batch, max_new_tokens)
  start = (jnp.zeros((), jnp.int32), hidden, cache, place(jnp.zeros(batch, bool)),
           place(jnp.full(shape, stop_id, jnp.int32)), place(jnp.zeros(shape, jnp.float32)),
           place(jnp.zeros(batch, jnp.int32)))
  _, _, _, done, tokens, logprobs, lengths = jax.lax.while_loop(going, body, start)
  return Rollout(tokens, logprobs, lengths, done)
