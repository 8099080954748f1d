"""The token loop: it stays on the device and serves any model with a step.

1. A prompt lies in a cache, computed once for all of its samples (`begin` copies it for each of them and draws their
   first token).
2. Tokens are drawn in a `while_loop` that ends when every answer has, or when the cache is full.
3. Then the cache grows to twice as many answer tokens, at first `bucket` and at most the cap, so that a short answer
   never pays for the attention of a long one. The loop donates its state, so the cache is written in place.
4. Between two sizes of the cache, where half of the rows have finished or more, the others are gathered into half the
   rows. The host learns one number at such a moment: how many rows go on. A call that is watched stops every few tokens
   to show them, with the same programs and the same draws.

Each size of the cache and of the batch is a program of its own: for a cap of `bucket` · 2ᵏ, k + 1 sizes of the cache.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.decoding import draw
from nla_jax.models.architectures import Architecture
from nla_jax.models.cache import Cache, chosen_rows, repeat_rows, repeated, with_room
from nla_jax.models.injection import Injection
from nla_jax.models.lora import variables
from nla_jax.models.parameters import transformer, unembedding
from nla_jax.models.products import einsum
from nla_jax.parallel import precision, sharding

BUCKET = 64  # answer tokens of the first cache
_FEWEST_ROWS = 8  # that a batch is cut to
_SHOWN_EVERY = 8  # tokens, of a call that is watched


@runtime_checkable
class Decoder(Protocol):
  """A linen module that the loop can sample from; its parameters are {"transformer": tree, …}."""

  architecture: Architecture
  dtype: Any

  def step(
    self, tokens: Int[Array, " rows"], cache: Cache, steering: Injection | None
  ) -> tuple[Float[Array, "rows d_model"], Cache]:
    """The hidden state after one more token of each row, and the cache with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """How answers are sampled, as far as programs are compiled for it.

  Attributes:
    stop_ids: tokens that end an answer, at least one.
    max_new_tokens: cap on sampled tokens, the stop token included.
    greedy: take the likeliest token; log-probabilities stay those of the model.
    bucket: answer tokens that the first cache holds.
  """

  stop_ids: tuple[int, ...]
  max_new_tokens: int
  greedy: bool = False
  bucket: int = BUCKET

  @property
  def cache_sizes(self) -> list[int]:
    """Answer tokens that the cache holds, one after another: doubled until the cap."""
    sizes = [min(self.bucket, self.max_new_tokens)]
    while sizes[-1] < self.max_new_tokens:
      sizes.append(min(2 * sizes[-1], self.max_new_tokens))
    return sizes


class Draws(NamedTuple):
  """Where the randomness of one call comes from.

  Attributes:
    key: random key of the call.
    ids: which stream each answer draws from; those of one prompt are adjacent.
    temperature: divides the logits.
  """

  key: jax.Array
  ids: Int[Array, " answers"]
  temperature: Any = 1.0


class Rollout(NamedTuple):
  """Sampled answers.

  Attributes:
    tokens: after the stop token, the stop token again.
    logprobs: log-probabilities (nats) at the sampling temperature; 0 after the stop.
    lengths: sampled tokens, the stop token included.
    finished: False where the cap was hit.
  """

  tokens: Int[Array, "batch max_new_tokens"]
  logprobs: Float[Array, "batch max_new_tokens"]
  lengths: Int[Array, " batch"]
  finished: Bool[Array, " batch"]


class State(NamedTuple):
  """Rows whose answers are being sampled.

  Attributes:
    step: tokens drawn so far.
    token: the last of them.
    cache: holds the prompt and every drawn token but the last.
    place: index of each row in the call's batch.
    ids: which stream each row draws from.
    out: the rows' answers so far; `finished` is True where a stop token was drawn.
    steering: vectors that go into each generated token, or None.
  """

  step: Int[Array, ""]
  token: Int[Array, " rows"]
  cache: Cache
  place: Int[Array, " rows"]
  ids: Int[Array, " rows"]
  out: Rollout
  steering: Injection | None


def cache_dtype(dtype):
  """The dtype of keys and values of a model whose products have operands in `dtype`."""
  # XLA's CPU backend rewrites a whole bfloat16 buffer to update a slice of it (half of a decoding step, measured).
  return jnp.float32 if precision.platform() == "cpu" else dtype


def begin(
  params: Any,
  hidden: Float[Array, "prompts d_model"],
  cache: Cache,
  draws: Draws,
  *,
  model: Decoder,
  sampling: Sampling,
  room: int,
  steering: Injection | None = None,
) -> State:
  """The state after the first token of every answer; called inside a jitted function.

  Args:
    params: from `weights.py`.
    hidden: state after each prompt.
    cache: holds the prompts and nothing else.
    draws: one stream for each answer.
    model: whose unembedding is used.
    sampling: how.
    room: answer tokens that the cache shall hold.
    steering: one vector for each prompt, for every generated token, or None.
  """
  batch, prompt_length = draws.ids.shape[0], cache.length
  cache = repeated(cache, batch)
  ids = sharding.reshard(draws.ids, "batch")
  hidden = repeat_rows(hidden, batch, 0, "batch", None)
  keys = draw.streams(draws.key, ids)
  token, logprob = _choose(hidden, params, keys, 0, draws.temperature, model, sampling.greedy)

  out = _no_answers(batch, sampling)
  places = sharding.reshard(jnp.arange(batch, dtype=jnp.int32), "batch")
  if steering is not None:
    steering = jax.tree.map(lambda x: repeat_rows(x, batch, 0, *_row_axes(x)), steering)
  return State(
    jnp.ones((), jnp.int32),
    token,
    with_room(cache, prompt_length + room),
    places,
    ids,
    _written(out, 0, token, logprob, sampling),
    steering,
  )


def run(
  params: Any,
  state: State,
  draws: Draws,
  *,
  model: Decoder,
  sampling: Sampling,
  limit: int | None = None,
  watch: Callable[[Rollout], None] | None = None,
) -> Rollout:
  """All answers, from the state that `begin` left with room for the first of `sampling.cache_sizes`.

  Args:
    params: from `weights.py`.
    state: of every answer's first token.
    draws: as in `begin`.
    model: as in `begin`.
    sampling: as in `begin`.
    limit: tokens after which no more are drawn, below the cap that programs are compiled for; None for the cap.
    watch: is shown the answers so far, every few tokens.
  """
  sizes = sampling.cache_sizes
  prompt_length = state.cache.length - sizes[0]
  done = None  # answers of rows that were cut away
  for size in sizes:
    # 2. and 3. Tokens until every answer has ended or the cache, grown to `size` of them, is full.
    rows, state = state.token.shape[0], _grown(state, prompt_length + size)
    last = size if limit is None else min(size, limit)
    for until in range(_SHOWN_EVERY, last, _SHOWN_EVERY) if watch else ():
      state, going = decode(
        params, state, draws.key, draws.temperature, until, model=model, sampling=sampling
      )
      watch(state.out if done is None else _returned(done, state))
    state, going = decode(
      params, state, draws.key, draws.temperature, last, model=model, sampling=sampling
    )
    if size == sizes[-1] or last == limit or not (going := int(sharding.fetch(going))):
      break

    # 4. Half of the rows, where no more go on; not on a mesh, where rows would have to move between devices.
    if going <= rows // 2 and rows // 2 >= _FEWEST_ROWS and not sharding.has_mesh():
      done = state.out if done is None else _returned(done, state)
      state = _halved(state)
  return state.out if done is None else _returned(done, state)


@functools.partial(jax.jit, static_argnames=("model", "sampling"), donate_argnums=1)
def decode(
  params: Any, state: State, key, temperature, until, *, model: Decoder, sampling: Sampling
):
  """Tokens until every answer has ended or has `until` of them. Also how many rows go on, [] int32."""
  keys = draw.streams(key, state.ids)

  def body(state: State) -> State:
    arguments = (state.token, state.cache, state.steering)
    hidden, cache = model.apply(variables(params), *arguments, method="step")
    token, logprob = _choose(hidden, params, keys, state.step, temperature, model, sampling.greedy)
    finished = state.out.finished
    token = jnp.where(finished, sampling.stop_ids[-1], token)
    logprob = jnp.where(finished, 0.0, logprob)
    out = _written(state.out, state.step, token, logprob, sampling)
    return state._replace(step=state.step + 1, token=token, cache=cache, out=out)

  def going(state: State):
    return (state.step < until) & ~jnp.all(state.out.finished)

  state = jax.lax.while_loop(going, body, state)
  return state, jnp.sum(~state.out.finished, dtype=jnp.int32)


def _choose(hidden, params, keys, step, temperature, model: Decoder, greedy: bool):
  """The next token of each row and its log-probability, from hidden states [rows, d_model]."""
  matrix = unembedding(transformer(params))
  logits = einsum("bd,vd->bv", hidden, matrix, model.dtype, "batch", "vocabulary")
  logits = sharding.reshard(logits, "batch", None)  # a draw needs the whole vocabulary
  if greedy:
    return draw.likeliest(logits)
  return draw.draw(logits / temperature, draw.uniforms(keys, step))


def _no_answers(batch: int, sampling: Sampling) -> Rollout:
  shape = (batch, sampling.max_new_tokens)
  return Rollout(
    sharding.reshard(jnp.full(shape, sampling.stop_ids[-1], jnp.int32), "batch", None),
    sharding.reshard(jnp.zeros(shape, jnp.float32), "batch", None),
    sharding.reshard(jnp.zeros(batch, jnp.int32), "batch"),
    sharding.reshard(jnp.zeros(batch, bool), "batch"),
  )


def _written(out: Rollout, step, token, logprob, sampling: Sampling) -> Rollout:
  """The answers with the token of this step."""
  here = jnp.arange(out.tokens.shape[1]) == step
  stopped = out.finished
  for stop_id in sampling.stop_ids:
    stopped = stopped | (token == stop_id)
  return Rollout(
    jnp.where(here, token[:, None], out.tokens),
    jnp.where(here, logprob[:, None], out.logprobs),
    out.lengths + ~out.finished,
    stopped,
  )


def _row_axes(x) -> tuple[str | None, ...]:
  return ("batch", *(None,) * (x.ndim - 1))


@functools.partial(jax.jit, static_argnames="length")
def enlarged(cache: Cache, length: int) -> Cache:
  """The cache with room for `length` tokens of each row; a program for each of its sizes."""
  return with_room(cache, length)


def _grown(state: State, length: int) -> State:
  if state.cache.length == length:
    return state
  return state._replace(cache=enlarged(state.cache, length))


@jax.jit
def _halved(state: State) -> State:
  """Half of the rows, those that go on among them."""
  half = state.token.shape[0] // 2
  kept = jnp.argsort(state.out.finished)[:half]  # stable: False first, in order
  rows = (state.token, state.place, state.ids, state.out, state.steering)
  token, place, ids, out, steering = jax.tree.map(lambda x: x[kept], rows)
  return State(state.step, token, chosen_rows(state.cache, kept), place, ids, out, steering)


@jax.jit
def _returned(whole: Rollout, state: State) -> Rollout:
  """The answers of all rows, with those of `state` in their places."""
  return jax.tree.map(lambda old, new: old.at[state.place].set(new), whole, state.out)
