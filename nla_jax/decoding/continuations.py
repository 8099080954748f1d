"""Continuations of prompts by a language model, steered or not.

Prompts of any lengths are padded on the left, to a length from a short list, so that few programs are compiled. A
prompt longer than a chunk goes through in chunks that fill the cache: attention then needs memory for a chunk of
queries, not for all of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.decoding import loop
from nla_jax.decoding.loop import Draws, Rollout, Sampling, State
from nla_jax.decoding.weights import decode_copy
from nla_jax.models.cache import Cache, empty_cache, repeated
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
  shared: int = 0,
) -> Read:
  """Prompts in the cache, chunk after chunk.

  Args:
    params: the model's own tree, as the target is loaded; or {"base": tree}, which is read where it lies.
    prompts: token ids of each, at least one.
    model: the language model.
    steering: vectors for the residual stream, or None.
    chunk: prompt tokens of one forward, at most.
    shared: tokens that all prompts begin with and none is steered at, fewer than any has; they are read once.
  """
  if "base" in params:
    params, model = {"transformer": {}, **params}, model.clone(lora=FROZEN)
  else:
    params = {"transformer": params}
  params = decode_copy(params, model.dtype)
  # Behind a shared beginning a single token is a common rest, and padding it would cost every row.
  n, ends = len(prompts), [prompt[shared:] for prompt in prompts]
  tokens, valid = padded(ends, chunk, _SHORTEST if not shared else 1)
  slots = None
  if steering is not None:
    places = [[place - shared for place in one] for one in steering.positions]
    slots = _slots(steering._replace(positions=places), ends, tokens.shape[1])

  # 1. What all of them begin with, as one row.
  first = padded([prompts[0][:shared]], chunk) if shared else None
  length = tokens.shape[1] + (first[0].shape[1] if shared else 0)
  rows, dtype = 1 if shared else n, loop.cache_dtype(model.dtype)
  cache = empty_cache(model.architecture, rows, length, dtype)
  if shared:
    for part in _chunks(first[0].shape[1], chunk):
      both = sharding.shard_rows((first[0][:, part], first[1][:, part]))
      _, cache = extend(params, *both, cache, None, model=model)
    cache = _repeated(cache, n)

  # 2. The rest of each.
  for part in _chunks(tokens.shape[1], chunk):
    injection = None if slots is None else _injection(steering, slots[:, part])
    both = sharding.shard_rows((tokens[:, part], valid[:, part]))
    hidden, cache = extend(params, *both, cache, injection, model=model)
  return Read(params, model, hidden, cache)


def _chunks(length: int, chunk: int) -> list[slice]:
  return [slice(start, start + chunk) for start in range(0, length, chunk)]


@functools.partial(jax.jit, static_argnames="n")
def _repeated(cache: Cache, n: int) -> Cache:
  return repeated(cache, n)


def continued(
  found: Read,
  draws: Draws,
  *,
  sampling: Sampling,
  steering: Steering | None = None,
  limit: int | None = None,
  watch: Callable[[Rollout], None] | None = None,
) -> Rollout:
  """What a language model writes after prompts that it has read.

  Args:
    found: from `read_prompts`.
    draws: as in `continue_prompts`.
    sampling: how.
    steering: as the prompts were read with; what it says of generated tokens is done here.
    limit: tokens of an answer, at most, below the cap of `sampling` that programs are compiled for.
    watch: is shown the answers so far, every few tokens.
  """
  n, every_token = len(found.hidden), None
  if steering is not None and np.any(steering.generated):
    every_token = _injection(
      steering, np.broadcast_to(np.reshape(steering.generated, (-1, 1)), (n, 1))
    )

  params, fixed = found.params, {"model": found.model, "sampling": sampling}
  read = (found.hidden, found.cache, draws, every_token)
  state = _begin(params, *read, room=sampling.cache_sizes[0], **fixed)
  return loop.run(params, state, draws, limit=limit, watch=watch, **fixed)


def next_logprobs(found: Read) -> np.ndarray:
  """Log-probabilities (nats) of every token after each prompt, [n, vocabulary] float32."""
  return sharding.fetch(
    _next_logprobs(found.params, found.hidden, dtype=jnp.dtype(found.model.dtype))
  )


@functools.partial(jax.jit, static_argnames="dtype")
def _next_logprobs(params: Any, hidden, *, dtype):
  matrix = unembedding(transformer(params))
  return jax.nn.log_softmax(einsum("bd,vd->bv", hidden, matrix, dtype, "batch", "vocabulary"))


def padded(
  prompts: Sequence[Sequence[int]], chunk: int = CHUNK, shortest: int = _SHORTEST
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts as rows padded on the left: tokens [n, length] int32 and valid [n, length] bool.

  The length is a power of two from `shortest` up to `chunk`, then a multiple of it.
  """
  longest = max(map(len, prompts))
  length = shortest
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
