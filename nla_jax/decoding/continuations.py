"""Continuations of prompts by a language model, steered or not.

Prompts of any lengths are padded on the left, to a length from a short list, so that few programs are compiled. A
prompt longer than a chunk goes through in chunks that fill the cache: attention then needs memory for a chunk of
queries, not for all of them.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.decoding import loop
from nla_jax.decoding.loop import Draws, Rollout, Sampling, State
from nla_jax.decoding.weights import decode_copy
from nla_jax.models.cache import Cache, empty_cache
from nla_jax.models.injection import ADD, Injection
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.lora import FROZEN, variables
from nla_jax.models.parameters import transformer, unembedding
from nla_jax.models.products import einsum
from nla_jax.parallel import sharding

CHUNK = 512  # prompt tokens of one forward, at most
_SHORTEST = 16  # tokens that a prompt is padded to, at least


class Steering(NamedTuple):
  """Vectors that change what a model computes while it reads and continues prompts.

  Attributes:
    vectors: [n, d_model] float32, one for each prompt.
    positions: for each prompt the indices of its tokens that take the vector.
    after: the block after which they do, 0-based; −1 is the embedding.
    mode: of `Injection`: `add` and `turn` are norm-matched, `replace` is not.
    strength: [n] float32, not of `replace`: lengths of the residual; None is 1.
    generated: whether every generated token takes it too, of all prompts or of each.
  """

  vectors: np.ndarray
  positions: Sequence[Sequence[int]]
  after: int
  mode: str = ADD
  strength: np.ndarray | None = None
  generated: bool | Sequence[bool] = False


class Read(NamedTuple):
  """Prompts that a model has read.

  Attributes:
    params: as the token loop reads them.
    model: the language model that reads them.
    hidden: [n, d_model], the state after each prompt.
    cache: holds the prompts and nothing else.
  """

  params: Any
  model: LanguageModel
  hidden: jax.Array
  cache: Cache


def continue_prompts(
  params: Any,
  prompts: Sequence[Sequence[int]],
  draws: Draws,
  *,
  model: LanguageModel,
  sampling: Sampling,
  steering: Steering | None = None,
  chunk: int = CHUNK,
) -> Rollout:
  """What a language model writes after each prompt.

  Args:
    params: as in `read_prompts`.
    prompts: token ids of each, at least one.
    draws: the streams of n·group answers; those of one prompt are adjacent.
    model: the language model.
    sampling: how.
    steering: vectors for the residual stream, or None.
    chunk: prompt tokens of one forward, at most.

  Returns:
    The answers, [n·group, …].
  """
  found = read_prompts(params, prompts, model=model, steering=steering, chunk=chunk)
  return continued(found, draws, sampling=sampling, steering=steering)


def read_prompts(
  params: Any,
  prompts: Sequence[Sequence[int]],
  *,
  model: LanguageModel,
  steering: Steering | None = None,
  chunk: int = CHUNK,
) -> Read:
  """Prompts in the cache, chunk after chunk.

  Args:
    params: the model's own tree, as the target is loaded; or {"base": tree}, which is read where it lies.
    prompts: token ids of each, at least one.
    model: the language model.
    steering: vectors for the residual stream, or None.
    chunk: prompt tokens of one forward, at most.
  """
  if "base" in params:
    params, model = {"transformer": {}, **params}, model.clone(lora=FROZEN)
  else:
    params = {"transformer": params}
  params = decode_copy(params, model.dtype)
  tokens, valid = padded(prompts, chunk)
  slots = None if steering is None else _slots(steering, prompts, tokens.shape[1])

  n, length = tokens.shape
  hidden, cache = None, empty_cache(model.architecture, n, length, loop.cache_dtype(model.dtype))
  for start in range(0, length, chunk):
    part = slice(start, start + chunk)
    injection = None if slots is None else _injection(steering, slots[:, part])
    rows = sharding.shard_rows((tokens[:, part], valid[:, part]))
    hidden, cache = extend(params, *rows, cache, injection, model=model)
  return Read(params, model, hidden, cache)


def continued(
  found: Read,
  draws: Draws,
  *,
  sampling: Sampling,
  steering: Steering | None = None,
  limit: int | None = None,
) -> Rollout:
  """What a language model writes after prompts that it has read.

  Args:
    found: from `read_prompts`.
    draws: as in `continue_prompts`.
    sampling: how.
    steering: as the prompts were read with; what it says of generated tokens is done here.
    limit: tokens of an answer, at most, below the cap of `sampling` that programs are compiled for.
  """
  n, every_token = len(found.hidden), None
  if steering is not None and np.any(steering.generated):
    every_token = _injection(
      steering, np.broadcast_to(np.reshape(steering.generated, (-1, 1)), (n, 1))
    )

  params, fixed = found.params, {"model": found.model, "sampling": sampling}
  read = (found.hidden, found.cache, draws, every_token)
  state = _begin(params, *read, room=sampling.cache_sizes[0], **fixed)
  return loop.run(params, state, draws, limit=limit, **fixed)


def next_logprobs(found: Read) -> np.ndarray:
  """Log-probabilities (nats) of every token after each prompt, [n, vocabulary] float32."""
  return sharding.fetch(
    _next_logprobs(found.params, found.hidden, dtype=jnp.dtype(found.model.dtype))
  )


@functools.partial(jax.jit, static_argnames="dtype")
def _next_logprobs(params: Any, hidden, *, dtype):
  matrix = unembedding(transformer(params))
  return jax.nn.log_softmax(einsum("bd,vd->bv", hidden, matrix, dtype, "batch", "vocabulary"))


def padded(prompts: Sequence[Sequence[int]], chunk: int = CHUNK) -> tuple[np.ndarray, np.ndarray]:
  """Prompts as rows padded on the left: tokens [n, length] int32 and valid [n, length] bool.

  The length is a power of two up to `chunk`, then a multiple of it.
  """
  longest = max(map(len, prompts))
  length = _SHORTEST
  while length < min(longest, chunk):
    length *= 2
  length = min(length, chunk)
  length = -(-max(longest, length) // length) * length

  tokens = np.zeros((len(prompts), length), np.int32)
  valid = np.zeros((len(prompts), length), bool)
  for row, ids in enumerate(prompts):
    tokens[row, length - len(ids) :] = ids
    valid[row, length - len(ids) :] = True
  return tokens, valid


@functools.partial(jax.jit, static_argnames="model", donate_argnums=3)
def extend(params: Any, tokens, valid, cache: Cache, injection, *, model: LanguageModel):
  """One chunk of every prompt behind what the cache holds: the last hidden states and the cache."""
  arguments = (tokens, valid, cache, injection)
  return model.apply(variables(params), *arguments, method="prefill")


@functools.partial(jax.jit, static_argnames=("model", "sampling", "room"))
def _begin(
  params, hidden, cache: Cache, draws: Draws, steering, *, model, sampling: Sampling, room: int
) -> State:
  return loop.begin(
    params,
    hidden,
    cache,
    draws,
    model=model,
    sampling=sampling,
    room=room,
    steering=steering,
  )


def _slots(steering: Steering, prompts: Sequence[Sequence[int]], length: int) -> np.ndarray:
  """[n, length] bool: the padded positions that take a vector."""
  slots = np.zeros((len(prompts), length), bool)
  for row, (ids, positions) in enumerate(zip(prompts, steering.positions, strict=True)):
    slots[row, [length - len(ids) + position for position in positions]] = True
  return slots


def _injection(steering: Steering, slot: np.ndarray) -> Injection:
  slot, vectors, strength = sharding.shard_rows(
    (slot, np.asarray(steering.vectors, np.float32), _strengths(steering))
  )
  return Injection(
    jnp.asarray(slot),
    jnp.asarray(vectors),
    jnp.asarray(strength),
    after=steering.after,
    mode=steering.mode,
  )


def _strengths(steering: Steering) -> np.ndarray:
  if steering.strength is None:
    return np.ones(len(steering.vectors), np.float32)
  return np.asarray(steering.strength, np.float32)
