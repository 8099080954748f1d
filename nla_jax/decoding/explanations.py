"""Explanations sampled from the AV: each activation is prefilled once for all of its samples.

The prompt before the slot is the same for every activation. It is computed once, and its keys and values are stored
once. From the slot on, each activation is computed once; its keys and values are then copied for each of its samples.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Float, Int

from nla_jax.arrays import Array
from nla_jax.decoding import loop
from nla_jax.decoding.loop import Draws, Rollout, Sampling, State
from nla_jax.decoding.weights import decodable
from nla_jax.models.cache import empty_cache
from nla_jax.models.lora import variables
from nla_jax.models.verbalizer import Verbalizer


def sample(
  params: Any,
  before: Int[Array, " P"],
  after: Int[Array, " A"],
  vectors: Float[Array, "n d_model"],
  draws: Draws,
  *,
  model: Verbalizer,
  sampling: Sampling,
  watch: Callable[[Rollout], None] | None = None,
) -> Rollout:
  """Explanations of a batch of activations.

  Args:
    params: the AV's.
    before: the prompt up to the slot.
    after: the prompt from the slot on.
    vectors: raw activations.
    draws: the streams of n·group answers; those of one activation are adjacent.
    model: the AV.
    sampling: how.
    watch: is shown the answers so far, every few tokens.

  Returns:
    The answers, [n·group, …].
  """
  params, model = decodable(params, model, draws.ids.shape[0])
  prompt, fixed = (before, after, vectors), {"model": model, "sampling": sampling}
  state = prefill(params, prompt, draws, room=sampling.cache_sizes[0], **fixed)
  return loop.run(params, state, draws, watch=watch, **fixed)


@functools.partial(jax.jit, static_argnames=("model", "sampling", "room"))
def prefill(
  params: Any, prompt: tuple, draws: Draws, *, model: Verbalizer, sampling: Sampling, room: int
) -> State:
  """Every prompt in the cache, with room for `room` tokens of each answer, and each answer's first token.

  Args:
    params: from `decodable`.
    prompt: (before, after, vectors), as in `sample`.
    draws: as in `sample`.
    model: the AV.
    sampling: how.
    room: answer tokens that the cache shall hold.
  """
  _, after, vectors = prompt
  cache = empty_cache(
    model.architecture, vectors.shape[0], after.shape[0], loop.cache_dtype(model.dtype)
  )
  hidden, cache = model.apply(variables(params), *prompt, cache, method="prefill")
  return loop.begin(params, hidden, cache, draws, model=model, sampling=sampling, room=room)
