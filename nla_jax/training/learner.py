"""The compiled programs of RL: scores of answers, the AR's judgement and regression, and the AV's policy update.

Inside `Learner` everything that is traced takes arrays and frozen settings and returns arrays. `rl` says what a step
does with these programs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import FrozenConfigDict

from nla_jax.autoencoder.fve import mse_nrm
from nla_jax.autoencoder.pair import Pair
from nla_jax.decoding.loop import Rollout
from nla_jax.models.lora import joined, split
from nla_jax.models.parameters import rounded
from nla_jax.parallel import sharding
from nla_jax.training import losses, rewards
from nla_jax.training.accumulation import gradient
from nla_jax.training.optimizer import (
  TrainState,
  create_state,
  guarded_update,
  make_optimizer,
)
from nla_jax.training.settings import policy_settings

States = dict[
  str, Any
]  # "av" and "ar": TrainState; "lagged_ar": parameters, where the reward is a lagged AR's


class PolicyBatch(NamedTuple):
  """What the AV's update sees; the leading axis is samples.

  Attributes:
    activations: [n, d_model], the one that each sample explains.
    tokens: [n, length] int32 answers.
    mask: [n, length] bool, True at sampled tokens, the stop token included.
    advantages: [n].
    old_logprob: [n, length] of the policy that sampled, by the trainer's own forward pass; None on policy.
    sampler_logprob: [n, length] as the sampler had it.
    reference_logprob: [n, length] of the frozen SFT AV.
    counted: [n] bool, False for samples that the loss leaves out; None where it takes all.
  """

  activations: Any
  tokens: Any
  mask: Any
  advantages: Any
  old_logprob: Any
  sampler_logprob: Any
  reference_logprob: Any
  counted: Any = None


class ReconstructionBatch(NamedTuple):
  """What the AR reads, and what it is to rebuild; the leading axis is texts.

  Attributes:
    tokens: [n, length] int32 texts after the shared beginning of the prompt.
    lengths: [n] int32.
    activations: [n, d_model].
    fits: [n] bool, False where there is no text to learn from.
  """

  tokens: Any
  lengths: Any
  activations: Any
  fits: Any


def frozen(params, dtype):
  """A copy of parameters that stays when they are trained on, its matrices rounded as products read them.

  The frozen base of adapters is not copied.
  """

  def own(new, old):
    # Donation would take a leaf that rounding left as it was.
    return jnp.copy(new) if new is old else new

  trained, base = split(params)
  return joined(jax.tree.map(own, rounded(trained, dtype), trained), base)


class Learner:
  """The compiled programs of one RL run.

  Args:
    pair: modules and prompts.
    settings: the config's `rl`.
    reference_params: the AV that the KL refers to, from `frozen`.
    bases: frozen bases of the adapters, by model, "av" and "ar"; None where all of a model is trained.
  """

  def __init__(self, pair: Pair, settings, reference_params, bases: dict[str, Any] | None = None):
    # A frozen copy: compiled code must not depend on what somebody changes later.
    self.pair, self.settings = pair, FrozenConfigDict(settings)
    self.policy, self.reference = policy_settings(settings), reference_params
    self.av_optimizer = make_optimizer(
      settings.av,
      max(settings.steps - settings.ar_steps, 1) * settings.epochs * settings.minibatches,
    )
    self.ar_optimizer = make_optimizer(settings.ar, settings.steps)

    self.bases = bases or {"av": None, "ar": None}
    # The sampler's temperature: policy, reference and sampler are one kind of distribution, in ratio, KL and entropy.
    self._score = functools.partial(pair.score_answers, temperature=pair.temperature)
    self.scores = jax.jit(self._score)
    self.update_av = jax.jit(self._update_av, donate_argnums=0)
    self.update_ar = jax.jit(self._update_ar, donate_argnums=0)
    self.judge = jax.jit(self._errors)
    self.follow = jax.jit(self._follow, donate_argnums=0)

  @property
  def on_policy(self) -> bool:
    """Whether a step is one update, so that the policy that learns is the one that sampled."""
    return self.settings.epochs * self.settings.minibatches == 1

  @property
  def calls(self) -> dict[str, int]:
    """How often a step in which the AV learns calls each program."""
    return {
      "update_ar": 1,
      "scores": 1 if self.on_policy else 2,
      "update_av": self.settings.epochs * self.settings.minibatches,
    }

  def create(self, av_params, ar_params) -> States:
    """What a checkpoint holds: both train states, the lagged AR's parameters and the best ones, where there are any."""

    def create(optimizer, params):
      return jax.jit(functools.partial(create_state, optimizer=optimizer), donate_argnums=0)(params)

    # Only what is trained has a state.
    (av_params, _), (ar_params, _) = split(av_params), split(ar_params)

    # Copied first: the AR's parameters are donated to its train state.
    lagged = {"lagged_ar": jax.tree.map(jnp.copy, ar_params)} if self.settings.ar_ema else {}
    best = {}
    if self.settings.keep == "best":
      best = {"best": jax.tree.map(jnp.copy, {"av": av_params, "ar": ar_params})}
    return {
      "av": create(self.av_optimizer, av_params),
      "ar": create(self.ar_optimizer, ar_params),
      **lagged,
      **best,
    }

  def params(self, states: States, name: str) -> dict:
    """The parameters of a model, its frozen base among them."""
    return self.whole(states[name].params, name)

  def whole(self, trained: dict, name: str) -> dict:
    """What is trained of a model, with its frozen base."""
    return joined(trained, self.bases[name])

  def reconstruct_and_learn(
    self,
    states: States,
    batch: ReconstructionBatch,
    teacher: ReconstructionBatch | None,
    group: int = 1,
  ) -> tuple[States, Float[np.ndarray, " samples"], jax.Array]:
    """The AR's whole part of a step: it judges the explanations, then learns from them.

    Args:
      states: the AR's train state in it is donated.
      batch: explanations.
      teacher: texts of the teacher that the AR learns from as well, or None.
      group: explanations of each activation, which stand side by side.

    Returns:
      the states, mse_nrm of each explanation before the update (by the lagged AR where there is one), and the norm
      of the AR's gradient.
    """
    # 1. The errors by a pass of its own, where the update's own pass does not give them.
    n, decay, judged = len(batch.tokens), self.settings.ar_ema, None
    best_only = self.settings.ar_texts == "best" and group > 1
    if decay or best_only:
      judge = joined(states["lagged_ar"], self.bases["ar"]) if decay else self.params(states, "ar")
      judged = sharding.fetch(self.judge(judge, *sharding.shard_rows(tuple(batch[:3]))))

    # 2. The update. Texts of which only the error is wanted cost no backward pass.
    if best_only:
      batch = _take(batch, rewards.best_of_groups(judged, batch.fits, group))
    if teacher is not None:
      batch = ReconstructionBatch(*(np.concatenate(both) for both in zip(batch, teacher)))
    given = (sharding.shard_rows(batch), self.bases["ar"])
    ar_state, live_errors, norm = self.update_ar(states["ar"], *given)

    states = states | {"ar": ar_state}
    if decay:
      states["lagged_ar"] = self.follow(states["lagged_ar"], ar_state.params)
    errors = sharding.fetch(live_errors)[:n] if judged is None else judged
    return states, errors, norm

  def improve(
    self, state: TrainState, rollout: Rollout, activations, rewards, *, kl_weight: float, seed: int
  ) -> tuple[TrainState, dict[str, Any]]:
    """All of a step's AV updates; returns the state and metrics.

    Args:
      state: the AV's; it is donated.
      rollout: the answers.
      activations: [n, d_model], the one that each answer explains.
      rewards: [n] of each answer.
      kl_weight: of the KL, in the loss or (k1) in the reward.
      seed: of the order in which samples are cut into minibatches.
    """
    # 1. What is learned from: advantages, and the log-probabilities that the loss compares with.
    rollout, rewards = jax.tree.map(sharding.fetch, rollout), rewards.astype(np.float32)
    if self.settings.extremes:
      chosen = losses.extremes(rewards, self.settings.group, self.settings.extremes)
      rollout, activations, rewards = _take((rollout, activations, rewards), chosen)
    batch = self._policy_batch(state, rollout, activations, rewards, kl_weight)

    # 2. Epochs of minibatches. A whole batch is not permuted: it is one update, whatever the order of its rows.
    order, n = np.random.default_rng(seed), len(rewards)
    logprob = None
    for _ in range(self.settings.epochs):
      for rows in np.split(order.permutation(n), self.settings.minibatches):
        part = batch if self.on_policy else _take(batch, rows)
        given = (sharding.shard_rows(part), kl_weight, self.bases["av"])
        state, metrics, logprob = self.update_av(state, *given)

    # 3. How far the trainer's log-probabilities are from the sampler's, for the same weights.
    before = sharding.fetch(logprob) if self.on_policy else batch.old_logprob
    difference = np.abs(before - batch.sampler_logprob)[batch.mask]
    metrics = metrics | {"sampler_gap": difference.mean()}
    if batch.counted is not None:
      metrics["constant"] = 1 - batch.counted.mean()
    return state, metrics

  def _policy_batch(
    self, state: TrainState, rollout: Rollout, activations, rewards, kl_weight: float
  ) -> PolicyBatch:
    tokens, sampled = rollout.tokens, rollout.logprobs
    mask = np.arange(tokens.shape[1])[None] < rollout.lengths[:, None]

    def score(params):
      return sharding.fetch(
        self.scores(params, *sharding.shard_rows((activations, tokens))).logprob
      )

    reference = score(self.reference)
    if self.settings.kl == "k1":
      rewards = rewards - kl_weight * self._answers_kl(sampled - reference, mask)
    rewards, group = rewards.astype(np.float32), self.settings.extremes or self.settings.group
    counted = losses.varying(rewards, group) if self.settings.drop_constant else None
    kind = self.settings.advantage
    advantages = np.asarray(losses.group_advantages(rewards, group, kind, counted))

    # On policy the update's own forward pass gives the old log-probabilities: one pass less.
    old = None if self.on_policy else score(joined(state.params, self.bases["av"]))
    return PolicyBatch(activations, tokens, mask, advantages, old, sampled, reference, counted)

  def _answers_kl(self, gap: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """k1 of each answer: the sum of log π − log π_ref over its tokens, as they count."""
    taper = self.policy.kl_taper
    if taper:
      gap = gap * losses.position_weights(mask.shape[1], taper)
    return np.sum(gap * mask, axis=1)

  def _errors(self, params, tokens, lengths, activations) -> Float[jax.Array, " n"]:
    """mse_nrm of an AR's reconstructions."""
    return mse_nrm(self.pair.rebuild(params, tokens, lengths), activations)

  def _follow(self, lagged, live):
    """The lagged AR, moved a little towards the live one."""
    decay = self.settings.ar_ema
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, lagged, live)

  def _update_ar(self, state: TrainState, batch: ReconstructionBatch, base):
    """Regression on the texts that fit. Also returns every row's mse_nrm before the update, and the gradient's norm."""
    settings = self.settings.ar

    def loss(trained, part: ReconstructionBatch):
      params = joined(trained, base)
      errors = self._errors(params, part.tokens, part.lengths, part.activations)
      return losses.masked_mean(errors, part.fits), ((), errors)

    def weight(part: ReconstructionBatch):
      return losses.mask_count(part.fits)

    found = gradient(loss, state.params, batch, accumulate=settings.accumulate, weight=weight)
    state, norm = guarded_update(
      state, found.grads, self.ar_optimizer, settings.clip, settings.skip_above
    )
    return state, found.rows, norm

  def _update_av(self, state: TrainState, batch: PolicyBatch, kl_weight, base):
    """One policy update. Also returns metrics, and every token's log-probability before the update."""
    settings = self.settings.av

    def weight(part: PolicyBatch):
      # What the loss is a mean over: tokens, or samples, of which every micro-batch has the same number unless some
      # are left out.
      if self.policy.average == "token":
        return losses.mask_count(_counted_mask(part))
      return 1.0 if part.counted is None else losses.mask_count(part.counted)

    def loss(trained, part: PolicyBatch):
      return self._policy_loss(joined(trained, base), part, kl_weight)

    found = gradient(loss, state.params, batch, accumulate=settings.accumulate, weight=weight)
    state, norm = guarded_update(
      state, found.grads, self.av_optimizer, settings.clip, settings.skip_above
    )
    ratio_max, logprob = found.rows
    return state, found.means | {"ratio_max": jnp.max(ratio_max), "av_gradient_norm": norm}, logprob

  def _policy_loss(self, params, batch: PolicyBatch, kl_weight):
    """The loss of a batch as `gradient` takes it: (mean, (further means, values of each row))."""
    scores = self._score(params, batch.activations, batch.tokens)

    # On policy the ratio is 1 by construction; its gradient is not 0, since only the numerator is differentiated.
    old = batch.old_logprob
    old = jax.lax.stop_gradient(scores.logprob) if old is None else old
    importance = None
    if self.policy.importance_cap:
      importance = losses.importance_weights(old, batch.sampler_logprob, self.policy.importance_cap)

    found = losses.policy_loss(
      scores,
      old,
      batch.reference_logprob,
      batch.advantages,
      _counted_mask(batch),
      self.policy,
      kl_weight,
      importance,
    )
    means = {"kl": found.kl, "entropy": found.entropy, "clip_fraction": found.clip_fraction}
    return found.loss, (means, (found.ratio_max, scores.logprob))


def _counted_mask(batch: PolicyBatch):
  """The sampled tokens that the loss takes."""
  return batch.mask if batch.counted is None else batch.mask & batch.counted[:, None]


def _take(batch, rows: np.ndarray):
  """Some rows of a batch."""
  return jax.tree.map(lambda x: x[rows], batch)
