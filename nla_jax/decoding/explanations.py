"""Sampling explanations: prefill each prompt once, then a token loop that stays on the device.

1. The weights are copied once into what the loop reads: matrices in the compute dtype, whole over `fsdp`.
2. The prompt before the slot is computed once and its keys and values are stored once. From the slot on, each
   activation is computed once; its keys and values are then copied for each of its samples.
3. Tokens are drawn in a `while_loop` that ends when every answer has, or when the cache is full. Then the cache grows
   to twice as many answer tokens (at first `bucket`, at most the cap), so that a short answer never pays for the
   attention of a long one. The loop donates its state, so the cache is written in place.
4. Between two sizes of the cache, where half of the rows have finished or more, the others are gathered into half the
   rows (not on a mesh, where rows would have to move between devices). The host learns one number at such a moment:
   how many rows go on.

Each size of the cache and of the batch is a program of its own: for a cap of `bucket` · 2ᵏ, k + 1 sizes of the cache.

Draws are the model's own distribution (temperature only: no top-p, top-k or repetition penalty, whatever a
checkpoint's generation_config says). Each sample has its own random stream, folded from its id, so a draw depends
neither on the batch it is in, nor on the size of the cache, nor on where it runs.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.models.parameters import OPERANDS, unembedding
from nla_jax.models.products import as_bits, einsum
from nla_jax.models.transformer import Cache, empty_cache
from nla_jax.models.verbalizer import Verbalizer
from nla_jax.parallel import precision, sharding

MATRICES = ("embedding", *OPERANDS)
BUCKET = 64  # answer tokens of the first cache
_FEWEST_ROWS = 8  # that a batch is cut to


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
  weights = jnp.pad(jnp.exp(logits - top), ((0, 0), (0, blocks * width - vocabulary))).reshape(
    batch, blocks, width
  )
  sums = jnp.sum(weights, axis=-1)
  before = jnp.cumsum(sums, axis=-1)
  total = before[:, -1]
  level = uniform * total
  block = jnp.minimum(jnp.sum(before <= level[:, None], axis=-1), blocks - 1)
  inside = level - jnp.where(
    block > 0, jnp.take_along_axis(before, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0
  )
  row = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
  running = jnp.cumsum(row, axis=-1)
  # Rounding may leave `inside` at or above the block's last sum: the last entry with weight is then meant.
  last = width - 1 - jnp.argmax(row[:, ::-1] > 0, axis=-1)
  offset = jnp.minimum(jnp.sum(running <= inside[:, None], axis=-1), last)
  weight = jnp.take_along_axis(row, offset[:, None], axis=1)[:, 0]
  return (block * width + offset).astype(jnp.int32), jnp.log(weight) - jnp.log(total)


class _State(NamedTuple):
  """Rows whose answers are being sampled.

  Attributes:
    step: [] int32, tokens drawn so far.
    token: [rows] int32, the last of them.
    cache: holds the prompt and every drawn token but the last.
    place: [rows] int32, index of each row in the call's batch.
    ids: [rows] int32, which stream each row draws from.
    out: the rows' answers so far; `finished` is True where the stop token was drawn.
  """

  step: jax.Array
  token: jax.Array
  cache: Cache
  place: jax.Array
  ids: jax.Array
  out: Rollout


def decode_copy(params, dtype):
  """The parameters as the token loop reads them: whole over `fsdp`, and the transformer's matrices rounded to the
  compute dtype (on CPUs as bits, see `as_bits`). One after the other, the largest first, since a copy needs its memory
  twice while it is made."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(params)
  specs, copies = jax.tree.leaves(sharding.parameter_specs(params, decode=True)), {}
  for i in copy_order([leaf for _, leaf in leaves]):
    path, leaf = leaves[i]
    matrix = path[0].key == "transformer" and path[-1].key in MATRICES
    copies[i] = leaf_copy(leaf, specs[i], dtype if matrix else leaf.dtype)
  return jax.tree.unflatten(tree, [copies[i] for i in range(len(leaves))])


def copy_order(leaves) -> list[int]:
  """In which order parameters are copied."""
  return sorted(range(len(leaves)), key=lambda i: -leaves[i].size)


@functools.partial(jax.jit, static_argnames=("spec", "dtype"))
def leaf_copy(leaf, spec, dtype):
  """One parameter of `decode_copy`."""
  leaf = leaf.astype(dtype)
  if dtype == jnp.bfloat16 and precision.platform() == "cpu":
    leaf = as_bits(leaf)
  return jax.sharding.reshard(leaf, spec) if sharding.has_mesh() else leaf


def sample(
  params,
  before,
  after,
  vectors,
  key,
  sample_ids,
  *,
  model: Verbalizer,
  stop_id: int,
  max_new_tokens: int,
  temperature: float = 1.0,
  greedy: bool = False,
  bucket: int = BUCKET,
) -> Rollout:
  """Explanations of a batch of activations.

  Args:
    params: the AV's.
    before: [P] int32, the prompt up to the slot.
    after: [A] int32, the prompt from the slot on.
    vectors: [n, d_model] raw activations.
    key: random key of this call.
    sample_ids: [n·group] int32, which stream each answer draws from; those of one activation are adjacent.
    model: the AV.
    stop_id: token that ends an answer.
    max_new_tokens: cap on sampled tokens.
    temperature: divides the logits.
    greedy: take the likeliest token; log-probabilities stay those of the model.
    bucket: answer tokens that the first cache holds.

  Returns:
    The answers, [n·group, …].
  """
  params = decode_copy(params, model.dtype)
  fixed = dict(model=model, stop_id=stop_id, greedy=greedy)
  sizes = cache_sizes(max_new_tokens, bucket)
  state = prefill(
    params,
    before,
    after,
    vectors,
    key,
    sample_ids,
    temperature,
    max_new_tokens=max_new_tokens,
    room=sizes[0],
    **fixed,
  )
  done = None  # answers of rows that were cut away
  for size in sizes:
    rows = state.token.shape[0]
    state, going = decode(
      params, _grown(state, after.shape[0] + size), key, temperature, size, **fixed
    )
    if size == sizes[-1] or not (going := int(sharding.fetch(going))):
      break
    if going <= rows // 2 and rows // 2 >= _FEWEST_ROWS and not sharding.has_mesh():
      done = state.out if done is None else _returned(done, state)
      state = _halved(state)
  return state.out if done is None else _returned(done, state)


def cache_sizes(max_new_tokens: int, bucket: int = BUCKET) -> list[int]:
  """Answer tokens that the cache holds, one after another: doubled until the cap."""
  sizes = [min(bucket, max_new_tokens)]
  while sizes[-1] < max_new_tokens:
    sizes.append(min(2 * sizes[-1], max_new_tokens))
  return sizes


@functools.partial(
  jax.jit, static_argnames=("model", "stop_id", "greedy", "max_new_tokens", "room")
)
def prefill(
  params,
  before,
  after,
  vectors,
  key,
  sample_ids,
  temperature,
  *,
  model: Verbalizer,
  stop_id: int,
  greedy: bool,
  max_new_tokens: int,
  room: int,
) -> _State:
  """Every prompt in the cache, with room for `room` tokens of each answer, and each answer's first token."""
  n, batch = vectors.shape[0], sample_ids.shape[0]
  # XLA's CPU backend rewrites a whole bfloat16 buffer to update a slice of it (half of a decoding step, measured).
  dtype = jnp.float32 if precision.platform() == "cpu" else model.dtype
  cache = empty_cache(model.architecture, n, after.shape[0], dtype)
  hidden, cache = model.apply({"params": params}, before, after, vectors, cache, method="prefill")

  def each(x, axis, *axes):  # once for each answer
    layout = sharding.activation(axes, (*x.shape[:axis], batch, *x.shape[axis + 1 :]))
    return x if batch == n else jnp.repeat(x, batch // n, axis=axis, out_sharding=layout)

  rows = lambda x: each(x, 1, None, "batch", None, "heads", None)
  cache = cache._replace(
    keys=rows(cache.keys), values=rows(cache.values), valid=each(cache.valid, 0, "batch", None)
  )
  ids = sharding.reshard(sample_ids, "batch")
  token, logprob = _choose(
    each(hidden, 0, "batch", None), params, _streams(key, ids), 0, temperature, model, greedy
  )
  shape = (batch, max_new_tokens)
  out = Rollout(
    sharding.reshard(jnp.full(shape, stop_id, jnp.int32), "batch", None),
    sharding.reshard(jnp.zeros(shape, jnp.float32), "batch", None),
    sharding.reshard(jnp.zeros(batch, jnp.int32), "batch"),
    sharding.reshard(jnp.zeros(batch, bool), "batch"),
  )
  places = sharding.reshard(jnp.arange(batch, dtype=jnp.int32), "batch")
  return _State(
    jnp.ones((), jnp.int32),
    token,
    _with_room(cache, after.shape[0] + room),
    places,
    ids,
    _written(out, 0, token, logprob, stop_id),
  )


@functools.partial(jax.jit, static_argnames=("model", "stop_id", "greedy"), donate_argnums=1)
def decode(
  params, state: _State, key, temperature, until, *, model: Verbalizer, stop_id: int, greedy: bool
):
  """Tokens until every answer has ended or has `until` of them. Also how many rows go on, [] int32."""
  streams = _streams(key, state.ids)

  def body(state: _State) -> _State:
    hidden, cache = model.apply({"params": params}, state.token, state.cache, method="step")
    token, logprob = _choose(hidden, params, streams, state.step, temperature, model, greedy)
    token, logprob = (
      jnp.where(state.out.finished, stop_id, token),
      jnp.where(state.out.finished, 0.0, logprob),
    )
    return state._replace(
      step=state.step + 1,
      token=token,
      cache=cache,
      out=_written(state.out, state.step, token, logprob, stop_id),
    )

  going = lambda state: (state.step < until) & ~jnp.all(state.out.finished)
  state = jax.lax.while_loop(going, body, state)
  return state, jnp.sum(~state.out.finished, dtype=jnp.int32)


def _streams(key, ids):
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)


def _choose(hidden, params, streams, step, temperature, model: Verbalizer, greedy: bool):
  """The next token of each row and its log-probability, from hidden states [rows, d_model]."""
  logits = einsum(
    "bd,vd->bv", hidden, unembedding(params["transformer"]), model.dtype, "batch", "vocabulary"
  )
  logits = sharding.reshard(logits, "batch", None)
  if greedy:
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return token, jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)[:, 0]
  return draw(
    logits / temperature,
    jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, step)))(streams),
  )


def _written(out: Rollout, step, token, logprob, stop_id: int) -> Rollout:
  """The answers with the token of this step."""
  here = jnp.arange(out.tokens.shape[1]) == step
  return Rollout(
    jnp.where(here, token[:, None], out.tokens),
    jnp.where(here, logprob[:, None], out.logprobs),
    out.lengths + ~out.finished,
    out.finished | (token == stop_id),
  )


def _with_room(cache: Cache, length: int) -> Cache:
  """The cache with room for `length` tokens of each row."""
  more = length - cache.valid.shape[1]
  pad = lambda x, axis: jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])
  return cache._replace(
    keys=pad(cache.keys, 2), values=pad(cache.values, 2), valid=pad(cache.valid, 1)
  )


@functools.partial(jax.jit, static_argnames="length")
def _enlarge(cache: Cache, length: int) -> Cache:
  return _with_room(cache, length)


def _grown(state: _State, length: int) -> _State:
  return (
    state
    if state.cache.valid.shape[1] == length
    else state._replace(cache=_enlarge(state.cache, length))
  )


@jax.jit
def _halved(state: _State) -> _State:
  """Half of the rows, those that go on among them."""
  kept = jnp.argsort(state.out.finished)[
    : state.token.shape[0] // 2
  ]  # stable: False first, in order
  cache = state.cache._replace(
    keys=state.cache.keys[:, kept],
    values=state.cache.values[:, kept],
    valid=state.cache.valid[kept],
  )
  rows = jax.tree.map(lambda x: x[kept], (state.token, state.place, state.ids, state.out))
  return _State(state.step, rows[0], cache, *rows[1:])


@jax.jit
def _returned(whole: Rollout, state: _State) -> Rollout:
  """The answers of all rows, with those of `state` in their places."""
  return jax.tree.map(lambda old, new: old.at[state.place].set(new), whole, state.out)
