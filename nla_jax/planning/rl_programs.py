"""The programs of RL, in the order in which a step calls them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nla_jax.autoencoder.pair import Pair
from nla_jax.decoding import loop, weights
from nla_jax.decoding.explanations import prefill
from nla_jax.decoding.loop import Draws, Sampling
from nla_jax.models.lora import joined, split
from nla_jax.planning.abstract import Program, given_back, ids, placed, rows
from nla_jax.planning.model import Model
from nla_jax.planning.work import held_bytes
from nla_jax.training.learner import Learner, PolicyBatch, ReconstructionBatch, frozen
from nla_jax.training.settings import learned_samples, teacher_rows


def reinforced(config, pair: Pair, model: Model, av, ar, key) -> list[Program]:
  """A step of RL: rollout, the AR's reward and regression, the reference's scores, the AV's update."""
  # Everything that lies on the devices during a step: both states, the reference, a lagged AR and the best parameters
  # where there are any, and the fixed AR of the looks at held-out activations.
  copy = functools.partial(frozen, dtype=pair.verbalizer.dtype)
  trained, base = split(av)
  reference = joined(placed(jax.eval_shape(copy, trained)), base)
  fixed = (placed(jax.eval_shape(copy, split(ar)[0])),) if config.rl.watch_every else ()
  learner = Learner(pair, config.rl, reference, {"av": base, "ar": split(ar)[1]})
  states = {name: placed(state) for name, state in jax.eval_shape(learner.create, av, ar).items()}

  # While the AV answers, the copy that it reads stands beside its own parameters; see `_rollout`.
  others = [state for name, state in states.items() if name != "av"]
  beside = (states["av"].opt_state, reference, *others)
  of_step = [
    *_rollout(config.rl, pair, av, key, beside),
    *_ar_programs(config.rl, learner, states, model.ar_input),
    _scores(config.rl, learner, states),
    _av_update(config.rl, learner, states),
  ]
  return [one._replace(beside=(*one.beside, *fixed)) for one in of_step]


def _ar_programs(rl, learner: Learner, states: dict, length: int) -> list[Program]:
  """The AR's reward and regression, in steps of both models and in those of the AR alone."""
  n, together = rl.activations * rl.group, _av_steps(rl)
  if rl.ar_texts == "all":
    return [_ar_update(rl, learner, states, length, n, rl.steps)]

  # All explanations are judged, and the best of each group are learned from.
  texts = _texts(learner, n, length)
  judged = tuple(texts[:3])
  others = tuple(state for name, state in states.items() if name != "ar")
  beside = (states["ar"].opt_state, learner.reference, *others)
  best = _ar_update(rl, learner, states, length, rl.activations, together)
  programs = [
    Program(
      "rl judge", learner.judge, (learner.params(states, "ar"), *judged), n, together, beside
    ),
    best,
  ]
  if not rl.ar_steps:
    return programs
  alone = _ar_update(rl, learner, states, length, n, rl.ar_steps)
  return [*programs, alone._replace(name="rl ar alone")]


def _ar_update(rl, learner: Learner, states: dict, length: int, n: int, steps: int) -> Program:
  """The AR's update on n explanations and the teacher's texts, in so many steps."""
  others = [state for name, state in states.items() if name != "ar"]
  return Program(
    "rl ar",
    learner.update_ar,
    (states["ar"], _texts(learner, n + teacher_rows(rl), length), learner.bases["ar"]),
    rows=n,
    calls=steps * learner.calls["update_ar"],
    beside=(learner.reference, *others),
  )


def _texts(learner: Learner, n: int, length: int) -> ReconstructionBatch:
  """n texts as the AR reads them."""
  return ReconstructionBatch(
    rows(n, length, dtype=jnp.int32),
    rows(n, dtype=jnp.int32),
    rows(n, _d_model(learner)),
    rows(n, dtype=bool),
  )


def _scores(rl, learner: Learner, states: dict) -> Program:
  """The reference's log-probabilities of the answers, or those of the policy before its updates."""
  n = learned_samples(rl)
  answers = (rows(n, _d_model(learner)), rows(n, rl.max_new_tokens, dtype=jnp.int32))
  return Program(
    "rl scores",
    learner.scores,
    (learner.reference, *answers),
    rows=n,
    calls=_av_steps(rl) * learner.calls["scores"],
    beside=tuple(states.values()),
  )


def _av_update(rl, learner: Learner, states: dict) -> Program:
  """The AV's update on a minibatch."""
  n, cap = learned_samples(rl) // rl.minibatches, rl.max_new_tokens
  batch = PolicyBatch(
    activations=rows(n, _d_model(learner)),
    tokens=rows(n, cap, dtype=jnp.int32),
    mask=rows(n, cap, dtype=bool),
    advantages=rows(n),
    old_logprob=None if learner.on_policy else rows(n, cap),
    sampler_logprob=rows(n, cap),
    reference_logprob=rows(n, cap),
    counted=rows(n, dtype=bool) if rl.drop_constant else None,
  )
  others = [state for name, state in states.items() if name != "av"]
  kl_weight = jax.ShapeDtypeStruct((), jnp.float32)
  return Program(
    "rl av",
    learner.update_av,
    (states["av"], batch, kl_weight, learner.bases["av"]),
    rows=n,
    calls=_av_steps(rl) * learner.calls["update_av"],
    beside=(learner.reference, *others),
  )


def _av_steps(rl) -> int:
  """Steps in which the AV learns."""
  return rl.steps - rl.ar_steps


def _d_model(learner: Learner) -> int:
  return learner.pair.verbalizer.architecture.d_model


def _rollout(rl, pair: Pair, av, key, beside: tuple) -> list[Program]:
  """The sampler's programs: the copy of the AV that it reads, the prompts, and the tokens.

  The copy is made one parameter after another; its program is shown for the parameter during which most memory is
  held. The tokens are those of answers that all run to the cap, with the largest cache: more than a rollout ever takes.
  """
  model, n, cap = pair.verbalizer, rl.activations * rl.group, rl.max_new_tokens
  sampling = Sampling(stop_ids=pair.prompts.stop_ids, max_new_tokens=cap)
  fixed = {"model": model, "sampling": sampling}
  temperature = jax.ShapeDtypeStruct((), jnp.float32)

  # 1. The copy in the operands' dtype, whole over `fsdp`.
  copy = given_back(functools.partial(weights.decode_copy, dtype=model.dtype), av)
  in_place = weights.read_in_place(av, model.dtype)
  copy = jax.tree.map(lambda own, new, same: own if same else new, av, copy, in_place)
  leaf, keywords, held = _largest_copy(av, copy)

  # 2. The prompts, which fill the cache that the token loop begins with.
  prompt = (
    ids(len(pair.prompts.before)),
    ids(len(pair.prompts.after)),
    rows(rl.activations, model.architecture.d_model),
  )
  given = (copy, prompt, Draws(key, rows(n, dtype=jnp.int32), temperature))
  with_room = fixed | {"room": cap}
  state = given_back(functools.partial(prefill, **with_room), *given)

  # 3. The token loop.
  tokens = (copy, state, key, temperature, ids())
  return [
    Program("rl copy", weights.leaf_copy, (leaf,), n, rl.steps, (*held, *beside), keywords),
    Program("rl prompts", prefill, given, n, rl.steps, (av, *beside), with_room),
    Program("rl tokens", loop.decode, tokens, n, rl.steps, (av, *beside), fixed, loop=cap),
  ]


def _largest_copy(av, copy) -> tuple[Any, dict[str, Any], tuple]:
  """The parameter during whose copying most memory is held, its keywords, and what is held beside it."""
  # The sampler's own order: largest first.
  leaves, copies = jax.tree.leaves(av), jax.tree.leaves(copy)
  order = [i for i in weights.copy_order(leaves) if copies[i] is not leaves[i]]

  def copied_before(i: int) -> list:
    return [copies[j] for j in order[: order.index(i)]]

  def held(i: int) -> int:
    # A copy needs its memory twice while it is made.
    return held_bytes(copied_before(i)) + 2 * held_bytes(copies[i])

  worst = max(order, key=held)
  keywords = {"spec": copies[worst].sharding.spec, "dtype": copies[worst].dtype}
  return leaves[worst], keywords, (leaves[:worst], leaves[worst + 1 :], copied_before(worst))
