"""Reinforcement learning: the AV is rewarded for words from which the AR can rebuild the vector.

One step:
1. Take B activations; sample G explanations of each; keep the sampler's log-probabilities.
2. Parse, wrap and tokenise them. One forward and backward of the live AR gives both the reward of every explanation
   (−mse_nrm before the update; −2 where it does not parse, hits the cap or overflows the AR) and the gradient of the
   AR's regression on the explanations that parsed.
3. Advantages relative to each activation's group; clipped policy loss with a KL term to the frozen SFT AV; one or
   more epochs of minibatches. With one of each the policy is the sampler's, and its ratio is 1 by construction.
4. Both updates are guarded against non-finite gradients.

The first `ar_steps` steps leave the AV as it is: B·G different activations get one explanation each and only the AR
learns, since it has to meet the AV's own text before its judgement is worth anything.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.fve import mse_nrm
from nla_jax.autoencoder.pair import Pair
from nla_jax.data.loader import StoreRows, batches
from nla_jax.decoding.loop import Rollout
from nla_jax.errors import NLAError
from nla_jax.models.parameters import rounded
from nla_jax.parallel import distributed, sharding
from nla_jax.progress import MetricsLog, Progress, StepLines, say
from nla_jax.training import losses
from nla_jax.training import rewards as rewards_lib
from nla_jax.training.accumulation import gradient
from nla_jax.training.alarms import CollapseAlarms
from nla_jax.training.checkpoint import Checkpoints, decode_loader, encode_loader
from nla_jax.training.optimizer import (
  TrainState,
  check_guard,
  create_state,
  guarded_update,
  make_optimizer,
)


class PolicyBatch(NamedTuple):
  """What the AV's update sees; leading axis: samples.

  Attributes:
    vectors: [n, d_model].
    tokens: [n, length] int32 answers.
    mask: [n, length] bool, True at sampled tokens, the stop token included.
    advantages: [n].
    old_logprob: [n, length] of the policy that sampled, by the trainer's own forward; None on policy.
    sampler_logprob: [n, length] as the sampler had it.
    reference_logprob: [n, length] of the frozen SFT AV.
  """

  vectors: Any
  tokens: Any
  mask: Any
  advantages: Any
  old_logprob: Any
  sampler_logprob: Any
  reference_logprob: Any


def check_settings(rl) -> None:
  """Raises NLAError for settings that cannot work, before anything is loaded."""
  if rl.group < 2 and rl.steps > rl.ar_steps:
    raise NLAError(
      f"config.rl.group={rl.group}: an advantage relative to the group needs at least 2 explanations"
    )
  for name, n in (
    ("epochs", rl.epochs),
    ("minibatches", rl.minibatches),
    ("av.accumulate", rl.av.accumulate),
    ("ar.accumulate", rl.ar.accumulate),
  ):
    if n < 1:
      raise NLAError(f"config.rl.{name}={n}: at least 1 is needed")
  if (rl.activations * rl.group) % rl.minibatches:
    raise NLAError(
      f"config.rl.minibatches={rl.minibatches} does not divide the {rl.activations * rl.group} samples "
      "of a step (activations × group)"
    )
  for name, n in (
    ("av", rl.activations * rl.group // rl.minibatches),
    ("ar", rl.activations * rl.group),
  ):
    if n % rl[name].accumulate:
      raise NLAError(
        f"config.rl.{name}.accumulate={rl[name].accumulate} does not divide the {n} explanations of an update"
      )
  for name, value, known in (
    ("reward", rl.reward, rewards_lib.REWARDS),
    ("kl", rl.kl, losses.KL_KINDS),
    ("advantage", rl.advantage, losses.ADVANTAGES),
    ("average", rl.average, losses.AVERAGES),
  ):
    if value not in known:
      raise NLAError(f"config.rl.{name}={value!r}: expected one of {', '.join(known)}")


def frozen(params, dtype):
  """A copy of parameters that stays when they are trained on, its matrices as products read them."""
  return jax.tree.map(
    lambda new, old: jnp.copy(new) if new is old else new, rounded(params, dtype), params
  )


def teacher_rows(rl) -> int:
  """Teacher's texts in a step's AR batch: `rl.ar_teacher` of the explanations, rounded up to what parts can share."""
  each = round(rl.ar_teacher * rl.activations * rl.group / rl.ar.accumulate)
  return rl.ar.accumulate * sharding.round_up_rows(max(each, 1)) if rl.ar_teacher else 0


class Learner:
  """The compiled programs of one RL run; `reference_params` are `frozen` ones."""

  def __init__(self, pair: Pair, rl, reference_params):
    self.pair, self.rl, self.reference = pair, rl, reference_params
    self.av_optimizer = make_optimizer(
      rl.av, max(rl.steps - rl.ar_steps, 1) * rl.epochs * rl.minibatches
    )
    self.ar_optimizer = make_optimizer(rl.ar, rl.steps)
    self.scores = jax.jit(pair.score_answers)
    self.update_av = jax.jit(self._update_av, donate_argnums=0)
    self.update_ar = jax.jit(self._update_ar, donate_argnums=0)
    self.judge = jax.jit(self.errors)
    self.follow = jax.jit(self._follow, donate_argnums=0)

  def create(self, av_params, ar_params) -> dict[str, Any]:
    """What a checkpoint holds: both train states and, where the reward is a lagged AR's, its parameters."""
    create = lambda optimizer: jax.jit(
      functools.partial(create_state, optimizer=optimizer), donate_argnums=0
    )
    lagged = {"lagged_ar": jax.tree.map(jnp.copy, ar_params)} if self.rl.ar_ema else {}
    return {
      "av": create(self.av_optimizer)(av_params),
      "ar": create(self.ar_optimizer)(ar_params),
      **lagged,
    }

  def errors(self, params, tokens, lengths, golds):
    """mse_nrm [n] of an AR's reconstructions."""
    pair = self.pair
    predicted = pair.reconstructor.apply(
      {"params": params}, jnp.asarray(pair.prompts.ar_before), tokens, lengths
    )
    return mse_nrm(predicted, golds)

  def _follow(self, lagged, live):
    """The lagged AR, one step further behind the live one."""
    return jax.tree.map(lambda a, b: self.rl.ar_ema * a + (1 - self.rl.ar_ema) * b, lagged, live)

  def _update_ar(self, state: TrainState, tokens, lengths, golds, good):
    """Regression on the rows that are good. Also returns every row's mse_nrm before the update."""

    def loss(params, part):
      tokens, lengths, golds, good = part
      errors = self.errors(params, tokens, lengths, golds)
      return losses.masked_mean(errors, good), ((), errors)

    found = gradient(
      loss,
      state.params,
      (tokens, lengths, golds, good),
      parts=self.rl.ar.accumulate,
      weight=lambda part: losses.mask_count(part[-1]),
    )
    state, norm = guarded_update(
      state, found.grads, self.ar_optimizer, self.rl.ar.clip, self.rl.ar.skip_above
    )
    return state, found.rows, norm

  def _update_av(self, state: TrainState, batch: PolicyBatch, kl_weight):
    rl = self.rl

    def loss(params, batch: PolicyBatch):
      scores = self.pair.score_answers(params, batch.vectors, batch.tokens)
      old = (
        jax.lax.stop_gradient(scores.logprob) if batch.old_logprob is None else batch.old_logprob
      )
      importance = (
        losses.importance_weights(old, batch.sampler_logprob, rl.importance_cap)
        if rl.importance_cap
        else None
      )
      result = losses.policy_loss(
        scores,
        old,
        batch.reference_logprob,
        batch.advantages,
        batch.mask,
        clip=rl.clip,
        clip_high=rl.clip_high,
        dual_clip=rl.dual_clip,
        importance=importance,
        kl_weight=kl_weight,
        kl_kind=rl.kl,
        entropy_weight=rl.entropy_weight,
        average=rl.average,
      )
      means = {"kl": result.kl, "entropy": result.entropy, "clip_fraction": result.clip_fraction}
      return result.loss, (means, (result.ratio_max, scores.logprob))

    tokens = (
      (lambda part: losses.mask_count(part.mask)) if rl.average == "token" else lambda part: 1.0
    )
    found = gradient(loss, state.params, batch, parts=rl.av.accumulate, weight=tokens)
    state, norm = guarded_update(
      state, found.grads, self.av_optimizer, rl.av.clip, rl.av.skip_above
    )
    ratio_max, logprob = found.rows
    return state, found.means | {"ratio_max": jnp.max(ratio_max), "av_gradient_norm": norm}, logprob

  def improve(
    self, state: TrainState, rollout: Rollout, vectors, rewards, kl_weight: float, seed: int
  ):
    """All of a step's AV updates. Returns the state and metrics."""
    rl, n = self.rl, len(vectors)
    tokens, lengths, sampled = map(
      sharding.fetch, (rollout.tokens, rollout.lengths, rollout.logprobs)
    )
    mask = np.arange(tokens.shape[1])[None] < lengths[:, None]
    score = lambda params: sharding.fetch(
      self.scores(params, *sharding.shard_rows((vectors, tokens))).logprob
    )
    reference = score(self.reference)
    if rl.kl == "k1":
      rewards = rewards - kl_weight * np.sum((sampled - reference) * mask, axis=1)
    advantages = np.asarray(
      losses.group_advantages(rewards.astype(np.float32), rl.group, rl.advantage)
    )
    on_policy = rl.epochs * rl.minibatches == 1
    old = None if on_policy else score(state.params)
    whole = PolicyBatch(vectors, tokens, mask, advantages, old, sampled, reference)
    order = np.random.default_rng(seed)
    gap = None
    for _ in range(rl.epochs):
      for part in np.split(order.permutation(n), rl.minibatches):
        batch = whole if on_policy else jax.tree.map(lambda x, part=part: x[part], whole)
        state, metrics, logprob = self.update_av(state, sharding.shard_rows(batch), kl_weight)
        gap = sharding.fetch(logprob) if on_policy else gap
    gap = old if gap is None else gap
    difference = np.abs(gap - sampled)[mask]
    return state, metrics | {"sampler_gap": difference.mean()}


def train(
  pair: Pair,
  rl,
  av_params,
  ar_params,
  examples: StoreRows,
  contexts: Callable[[int], str],
  baseline: float,
  *,
  gold: StoreRows | None = None,
  folder: Path,
  seed: int,
  checkpoint_every: int,
  guard_limit: int,
  note_progress: Callable[[], None],
) -> dict[str, Any]:
  """Runs the loop; returns {"av": params, "ar": params}.

  Args:
    pair: modules and prompts; `pair.max_new_tokens` is the cap.
    rl: the config's `rl`.
    av_params: the SFT AV, where the policy starts and what the KL refers to.
    ar_params: the SFT AR.
    examples: activations to explain.
    contexts: from a store row to the words before it, for the log of samples.
    baseline: variance of the normalised activations, for FVE on the (fresh, but training) batch.
    gold: activations with the teacher's text as AR inputs (`tokens`, `lengths`); needed where `rl.ar_teacher` > 0.
    folder: for metrics, samples and checkpoints.
    seed: of batches and of every draw.
    checkpoint_every: steps.
    guard_limit: skipped updates in a row that stop the run.
    note_progress: called after each checkpoint.
  """
  check_settings(rl)
  learner = Learner(pair, rl, frozen(av_params, pair.verbalizer.dtype))
  states = learner.create(av_params, ar_params)
  checkpoints = Checkpoints(folder / "checkpoints", keep=1)
  per_step = rl.activations * rl.group
  stream = batches(examples, batch_size=min(per_step, len(examples)), seed=seed)
  n_gold = teacher_rows(rl)
  gold_stream = batches(gold, batch_size=n_gold, seed=seed) if n_gold else None
  streams = [one for one in (stream, gold_stream) if one is not None]
  kl_weight = rl.kl_weight
  start, found = 0, checkpoints.restore(states)
  if found is not None:
    states, loop = found
    start, kl_weight = loop["step"], loop["kl_weight"]
    for one, position in zip(streams, loop["loaders"], strict=True):
      one.set_state(decode_loader(position, one.get_state()))
  log, samples = MetricsLog(folder, start), StepLines(folder / "samples.jsonl", start)
  progress, watch = Progress("rl", rl.steps, "step", start), CollapseAlarms()
  for step in range(start, rl.steps):
    both = step >= rl.ar_steps
    clock = [time.time()]
    batch = next(stream)
    take = np.arange(per_step) % len(batch["row"])
    if both:  # the first activations of the loader's batch, each for a whole group
      take = np.repeat(take[: rl.activations], rl.group)
    vectors, rows = batch["activations"][take], batch["row"][take]
    key = jax.random.fold_in(jax.random.key(seed), step)
    each = vectors[:: rl.group] if both else vectors  # once for all of its explanations
    rollout = jax.block_until_ready(
      pair.roll_out(states["av"].params, each, key, np.arange(per_step, dtype=np.int32))
    )
    clock.append(time.time())
    texts = pair.parse_answers(rollout)
    read = (
      rewards_lib.truncate(texts, pair.tokenizer, seed * 1_000_003 + step) if rl.truncate else texts
    )
    inputs = pair.encode(read)
    given = (inputs.tokens, inputs.lengths, vectors)
    lagged = learner.judge(states["lagged_ar"], *sharding.shard_rows(given)) if rl.ar_ema else None
    fits = inputs.fits
    if n_gold:
      taught = next(gold_stream)
      given = tuple(
        np.concatenate(both_)
        for both_ in zip(
          given, (taught["tokens"], taught["lengths"], taught["activations"].astype(np.float32))
        )
      )
      fits = np.concatenate([fits, np.ones(n_gold, bool)])
    states["ar"], live, ar_norm = learner.update_ar(
      states["ar"], *sharding.shard_rows((*given, fits))
    )
    if rl.ar_ema:
      states["lagged_ar"] = learner.follow(states["lagged_ar"], states["ar"].params)
    errors = sharding.fetch(live if lagged is None else lagged)[:per_step]
    clock.append(time.time())
    lengths, finished = sharding.fetch(rollout.lengths), sharding.fetch(rollout.finished)
    rewards = rewards_lib.reconstruction_reward(errors, ~inputs.fits, rl.reward)
    rewards = rewards - rewards_lib.style_penalty(texts, lengths, rl)
    good = inputs.fits
    metrics = {
      "reward": rewards.mean(),
      "length": lengths.mean(),
      "parse_rate": good.mean(),
      "capped": 1 - finished.mean(),
      "ar_gradient_norm": ar_norm,
    }
    if good.any():
      metrics["fve"] = 1 - errors[good].mean() / baseline
      metrics["duplicates"] = 1 - len(set(texts) - {None}) / sum(text is not None for text in texts)
    if both:
      states["av"], more = learner.improve(
        states["av"], rollout, vectors, rewards, kl_weight, seed=seed * 1_000_003 + step
      )
      metrics |= more | {"kl_weight": kl_weight}
      if rl.kl_target:
        kl_weight = losses.adapted_kl_weight(kl_weight, float(more["kl"]), rl.kl_target)
    jax.block_until_ready(states["av"].step)
    clock.append(time.time())
    metrics |= dict(zip(("seconds_rollout", "seconds_ar", "seconds_av"), np.diff(clock)))
    metrics |= {"av_skipped": states["av"].skipped, "ar_skipped": states["ar"].skipped}
    log.write(step, **metrics)
    progress.advance(
      **{name: float(metrics[name]) for name in ("reward", "fve", "length") if name in metrics}
    )
    if step % rl.sample_every == 0:
      context, shown = contexts(int(rows[0])), texts[0] or "(no explanation could be read)"
      samples.write(step, context=context, explanation=shown, reward=float(rewards[0]))
      one_line = shown.replace("\n\n", " | ")
      say(f"  step {step}: …{context[-60:]!r} -> {one_line!r}  reward {rewards[0]:.3f}")
    for alarm in watch.alarms(metrics):
      say(f"  step {step}: {alarm}")
    for name in ("av", "ar"):
      check_guard(states[name], guard_limit, f"rl ({name})")
    stop = distributed.preempted()
    if (stop or (step + 1) % checkpoint_every == 0) and step + 1 < rl.steps:
      checkpoints.save(
        step + 1,
        states,
        {
          "step": step + 1,
          "kl_weight": kl_weight,
          "loaders": [encode_loader(one.get_state()) for one in streams],
        },
      )
      note_progress()
    if stop:
      checkpoints.close()
      raise distributed.PreemptedError(f"rl stopped after step {step + 1} of {rl.steps}")
  log.close()
  samples.close()
  progress.close()
  checkpoints.close()
  return {name: states[name].params for name in ("av", "ar")}
