"""Reinforcement learning: the AV is rewarded for explanations from which the AR can rebuild the activation.

One step:
1. Explanations. Take B activations and sample G explanations of each; keep the sampler's log-probabilities.
2. Reward. Parse the answers and encode them for the AR; with `reword` it reads some of them in other words. One forward
   and backward pass of the live AR gives both the reward of every explanation (−mse_nrm before the update; −2 where it
   does not parse, hits the length cap or overflows the AR) and the gradient of the AR's regression on the explanations
   that parsed. With `ar_ema` the reward is that of a lagged copy of the AR, by a pass of its own.
3. Policy. Advantages are relative to each activation's group. The loss is the clipped policy loss with a KL term to
   the frozen SFT AV, over one or more epochs of minibatches. With one of each, the policy that learns is the one that
   sampled, and its ratio is 1 by construction.
4. Guard. A non-finite gradient changes neither model and is counted; too many in a row stop the run.

Every `watch_every` steps held-out activations are looked at before step 1, see `keeping`.

The first `ar_steps` steps leave out 3: B·G different activations get one explanation each and only the AR learns. It
has to meet the AV's own text before its judgement is worth anything.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nla_jax.autoencoder.fve import fve
from nla_jax.autoencoder.pair import Pair
from nla_jax.data.loader import StoreRows, batches
from nla_jax.decoding.explanations import Rollout
from nla_jax.models.lora import split
from nla_jax.parallel import sharding
from nla_jax.progress import StepLines, say
from nla_jax.training import losses
from nla_jax.training import rewards as rewards_lib
from nla_jax.training.alarms import CollapseAlarms
from nla_jax.training.keeping import MODELS, Lookout
from nla_jax.training.learner import Learner, ReconstructionBatch, States, frozen
from nla_jax.training.loop import Loop, Session
from nla_jax.training.settings import check_settings, host_seed, teacher_rows
from nla_jax.workdir import SAMPLES

_SHOWN = ("reward", "fve", "length")  # beside the bar


class Start(NamedTuple):
  """Where RL begins: the parameters of both models after SFT.

  Attributes:
    av_params: where the policy starts, and what the KL refers to.
    ar_params: where the AR starts.
  """

  av_params: Any
  ar_params: Any


class Examples(NamedTuple):
  """What RL learns from.

  Attributes:
    activations: rows of the store to explain.
    context: from a store row to the words before it, for the log of samples.
    baseline: variance of the normalised activations, for FVE on the (fresh, but training) batch.
    teacher_text: activations with the teacher's text as AR inputs (`tokens`, `lengths`); needed where
      `rl.ar_teacher` > 0.
    held_out: [n, d_model] raw activations that are looked at now and then; needed where `rl.watch_every` > 0.
    reworded: explanations as the AR reads them in the place of their words, by a seed; needed where `rl.reword` > 0.
    false_share: [n] shares of each explanation's claims that its row's context contradicts, in [0, 1]; needed where
      `rl.false_claim_cost` > 0.
  """

  activations: StoreRows
  context: Callable[[int], str]
  baseline: float
  teacher_text: StoreRows | None = None
  held_out: np.ndarray | None = None
  reworded: Callable[[list[str | None], int], list[str | None]] | None = None
  false_share: Callable[[list[str | None], np.ndarray], np.ndarray] | None = None


class Batch(NamedTuple):
  """What one step works on.

  Attributes:
    rows: [B] of the store.
    activations: [B, d_model] at those rows.
    group: explanations of each activation.
    teacher: texts of the teacher that the AR learns from as well, or None.
    av_learns: whether the step has its third phase.
  """

  rows: np.ndarray
  activations: np.ndarray
  group: int
  teacher: ReconstructionBatch | None
  av_learns: bool


class Seeds(NamedTuple):
  """What a step's random draws depend on; a function of the run's seed and the step alone.

  Attributes:
    key: of sampling, on the devices.
    seed: of draws on the host.
  """

  key: jax.Array
  seed: int


class Step(NamedTuple):
  """What came of one step.

  Attributes:
    metrics: scalars by name, for the curve.
    texts: the explanation of each sample; None where the answer could not be read.
    rewards: [n] of each sample.
  """

  metrics: dict[str, Any]
  texts: list[str | None]
  rewards: np.ndarray


def train(
  pair: Pair, settings, start: Start, examples: Examples, session: Session
) -> dict[str, Any]:
  """Runs RL; returns {"av": params, "ar": params}.

  Args:
    pair: modules and prompts; `pair.max_new_tokens` is the length cap.
    settings: the config's `rl`.
    start: parameters after SFT; they are donated.
    examples: activations to explain.
    session: where the run lives.
  """
  # The reference is copied before the AV's parameters are donated to its train state.
  check_settings(settings)
  bases = {"av": split(start.av_params)[1], "ar": split(start.ar_params)[1]}
  learner = Learner(pair, settings, frozen(start.av_params, pair.verbalizer.dtype), bases)
  lookout = Lookout(learner, start.ar_params, examples.held_out, session.seed)
  states = learner.create(*start)
  streams = _open_streams(examples, settings, session.seed)

  loop = Loop(session, settings.steps, streams)
  states, kept = loop.restore(states, kl_weight=settings.kl_weight, **lookout.nothing_kept)
  kl_weight = kept.pop("kl_weight")
  samples = loop.lines(SAMPLES)
  alarms = CollapseAlarms()

  for step in loop.remaining():
    states, kept, seen = lookout.look(step, states, kept)
    batch = _next_batch(streams, settings, av_learns=step >= settings.ar_steps)
    states, done = take_step(
      learner, states, batch, step_seeds(session.seed, step), kl_weight, examples
    )

    # What a person sees: the curve, a sample now and then, and signs that something goes wrong.
    shown = {name: done.metrics[name] for name in _SHOWN if name in done.metrics}
    loop.record(step, done.metrics | seen, shown)
    if step % settings.sample_every == 0:
      _log_sample(samples, step, examples.context(int(batch.rows[0])), done)
    for alarm in alarms.alarms(done.metrics):
      say(f"  step {step}: {alarm}")

    # The weight is saved with the step: a resumed run goes on with it.
    if settings.kl_target and batch.av_learns:
      kl_weight = losses.adapted_kl_weight(kl_weight, float(done.metrics["kl"]), settings.kl_target)
    # Before the step ends: a run that is stopped there goes on behind it.
    if session.snapshot_is_due(step + 1, settings.steps):
      session.snapshot(step + 1, {name: learner.params(states, name) for name in MODELS})
    loop.end_step(step, states, kl_weight=kl_weight, **kept)

  states, kept, seen = lookout.look(settings.steps, states, kept)
  loop.close(**seen)
  return lookout.result(states, kept)


def take_step(
  learner: Learner,
  states: States,
  batch: Batch,
  seeds: Seeds,
  kl_weight: float,
  examples: Examples,
) -> tuple[States, Step]:
  """One step, with the phases of the module's docstring.

  Args:
    learner: the compiled programs.
    states: both models with their optimizers; they are donated, so only the returned ones may be used afterwards.
    batch: activations.
    seeds: what the step's random draws depend on.
    kl_weight: of the KL to the reference.
    examples: what is known of the activations beside their values.
  """
  pair, settings = learner.pair, learner.settings
  n = len(batch.activations) * batch.group
  activations = np.repeat(batch.activations, batch.group, axis=0)  # [n, d_model]
  clock = [time.time()]

  # 1. Explanations of every activation: its prompt is computed once for the whole group.
  sample_ids = np.arange(n, dtype=np.int32)
  rollout = jax.block_until_ready(
    pair.roll_out(learner.params(states, "av"), batch.activations, seeds.key, sample_ids)
  )
  clock.append(time.time())

  # 2. The reward of each explanation, and the AR's regression, from one pass of the AR.
  texts = pair.parse_answers(rollout)
  inputs = pair.encode(_as_read(texts, pair, settings, examples, seeds.seed))
  explained = ReconstructionBatch(inputs.tokens, inputs.lengths, activations, inputs.fits)
  states, errors, ar_norm = learner.reconstruct_and_learn(
    states, explained, batch.teacher, batch.group
  )
  clock.append(time.time())
  rewards, metrics = _reward(rollout, texts, errors, inputs.fits, settings)
  metrics |= {"ar_gradient_norm": ar_norm}
  metrics |= _metrics_of_parsed(errors, inputs.fits, texts, examples.baseline)
  if settings.false_claim_cost and batch.av_learns:
    false = examples.false_share(texts, np.repeat(batch.rows, batch.group))
    rewards = rewards - np.float32(settings.false_claim_cost) * false
    metrics |= {"false_claims": false.mean()}

  # 3. The policy's updates; while only the AR learns there are none.
  if batch.av_learns:
    state, more = learner.improve(
      states["av"], rollout, activations, rewards, kl_weight=kl_weight, seed=seeds.seed
    )
    states = states | {"av": state}
    metrics |= more | {"kl_weight": kl_weight}
  jax.block_until_ready(states["av"].step)
  clock.append(time.time())

  # 4. What the guard skipped so far; `Loop.end_step` stops the run after too many in a row.
  metrics |= dict(zip(("seconds_rollout", "seconds_ar", "seconds_av"), np.diff(clock)))
  metrics |= {"av_skipped": states["av"].skipped, "ar_skipped": states["ar"].skipped}
  return states, Step(metrics, texts, rewards)


def step_seeds(seed: int, step: int) -> Seeds:
  """The draws of a step. They do not depend on the steps before, so a resumed run draws the same."""
  return Seeds(jax.random.fold_in(jax.random.key(seed), step), host_seed(seed, step))


def _as_read(
  texts: list[str | None], pair: Pair, settings, examples: Examples, seed: int
) -> list[str | None]:
  """Explanations as the AR reads them: as they are, or in other words, or cut."""
  if settings.reword:
    # Drawn for every text, so that one that does not parse changes no other's draw.
    drawn = np.random.default_rng((seed, 1)).random(len(texts)) < settings.reword
    others = examples.reworded(texts, seed)
    texts = [other if now else text for text, other, now in zip(texts, others, drawn)]
  return rewards_lib.truncate(texts, pair.tokenizer, seed) if settings.truncate else texts


def _reward(
  rollout: Rollout, texts: list[str | None], errors: np.ndarray, fits: np.ndarray, settings
) -> tuple[np.ndarray, dict[str, Any]]:
  """The reward [n] of each explanation, and metrics of it and of the answers."""
  lengths = sharding.fetch(rollout.lengths)
  rewards = rewards_lib.reconstruction_reward(errors, ~fits, settings.reward)
  rewards = rewards - rewards_lib.style_penalty(texts, lengths, settings)
  return rewards, {
    "reward": rewards.mean(),
    "length": lengths.mean(),
    "parse_rate": fits.mean(),
    "capped": 1 - sharding.fetch(rollout.finished).mean(),
  }


def _metrics_of_parsed(
  errors: np.ndarray, fits: np.ndarray, texts: list[str | None], baseline: float
) -> dict[str, Any]:
  """FVE and duplicates among the explanations that parse and fit the AR; nothing where none does."""
  # Without any of them both would be divisions by zero.
  if not fits.any():
    return {}

  n_parsed = sum(text is not None for text in texts)
  return {
    "fve": fve(errors[fits], baseline),
    "duplicates": 1 - len(set(texts) - {None}) / n_parsed,
  }


def _open_streams(examples: Examples, settings, seed: int) -> list:
  """Iterators over activations and, where the AR learns from it, over the teacher's text."""
  n = min(settings.activations * settings.group, len(examples.activations))
  streams = [batches(examples.activations, batch_size=n, seed=seed)]
  if n_teacher := teacher_rows(settings):
    streams.append(batches(examples.teacher_text, batch_size=n_teacher, seed=seed))
  return streams


def _next_batch(streams: list, settings, av_learns: bool) -> Batch:
  """The next step's batch.

  The loader always gives B·G activations. A step in which the AV learns takes the first B of them, each for a whole
  group; otherwise all are taken, one explanation each. A store with fewer rows gives some of them again.
  """
  # Rows that are missing to B·G are taken again, so that every step has one shape to compile.
  found = next(streams[0])
  group = settings.group if av_learns else 1
  take = np.arange(settings.activations * settings.group // group) % len(found["row"])

  teacher = None
  if len(streams) > 1:
    taught = next(streams[1])
    teacher = ReconstructionBatch(
      taught["tokens"],
      taught["lengths"],
      taught["activations"].astype(np.float32),
      np.ones(len(taught["row"]), bool),
    )
  return Batch(found["row"][take], found["activations"][take], group, teacher, av_learns)


def _log_sample(samples: StepLines, step: int, context: str, done: Step) -> None:
  """One explanation of the step, to the file of samples and to the person who watches."""
  shown = done.texts[0] or "(no explanation could be read)"
  samples.write(step, context=context, explanation=shown, reward=float(done.rewards[0]))
  one_line = shown.replace("\n\n", " | ")
  say(f"  step {step}: …{context[-60:]!r} -> {one_line!r}  reward {done.rewards[0]:.3f}")
