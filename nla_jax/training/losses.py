"""Losses as functions of arrays. Natural logarithms; float32 throughout."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from nla_jax.arrays import Array
from nla_jax.models.token_scores import TokenScores

KL_KINDS = ("k1", "k2", "k3")
LOSSES = ("ppo", "cispo")
ADVANTAGES = ("grpo", "mean", "rloo", "batch")
AVERAGES = ("sample", "token")
_CONSTANT = 1e-6  # rewards of a group that lie within it do not vary


def masked_mean(
  x: Float[Array, "*shape"], mask: Bool[Array, "*shape"], axis: int | None = None
) -> Float[jax.Array, "..."]:
  """Mean of x where the mask is True, 0 where nothing is. Every average over tokens goes through this function."""
  mask = mask.astype(jnp.float32)
  # `where`, not a product: what is masked may be NaN or infinite, and 0 · NaN is NaN.
  return jnp.sum(jnp.where(mask > 0, x, 0.0), axis=axis) / jnp.maximum(
    jnp.sum(mask, axis=axis), 1.0
  )


def mask_count(mask: Bool[Array, "*shape"]) -> Float[jax.Array, ""]:
  """How many entries are True: the weight of a micro-batch's masked mean in the mean over the whole batch."""
  return jnp.sum(mask.astype(jnp.float32))


def sft_loss(scores: TokenScores, mask: Bool[Array, "batch length"]) -> Float[jax.Array, ""]:
  """Mean negative log-probability of the supervised tokens, in nats a token."""
  return -masked_mean(scores.logprob, mask)


def varying(rewards: Float[np.ndarray, " samples"], group: int) -> Bool[np.ndarray, " samples"]:
  """True for the members of groups whose rewards vary: those of the others have no advantage over one another."""
  r = rewards.reshape(-1, group)
  # Equal texts may differ in the last bits of their errors.
  return np.repeat(r.max(1) - r.min(1) > _CONSTANT, group)


def extremes(
  rewards: Float[np.ndarray, " samples"], group: int, kept: int
) -> Integer[np.ndarray, " chosen"]:
  """The samples with the highest and the lowest rewards of each group, as many of both, in their order.

  Their rewards vary most, and advantages between them carry most of what the group says (down-sampled rollouts,
  Xu et al. 2025, arXiv 2504.13818).

  Args:
    rewards: the members of a group stand side by side.
    group: members of each group.
    kept: of each group, even.
  """
  order = np.argsort(rewards.reshape(-1, group), axis=1, kind="stable")
  ends = np.concatenate([order[:, : kept // 2], order[:, group - kept // 2 :]], axis=1)
  return (np.sort(ends, axis=1) + np.arange(len(ends))[:, None] * group).reshape(-1)


def group_advantages(
  rewards: Float[Array, " samples"],
  group: int,
  kind: str = "grpo",
  counted: Bool[Array, " samples"] | None = None,
) -> Float[Array, " samples"]:
  """Advantages of rewards relative to their group; a group of equal rewards gets zeros.

  Args:
    rewards: the members of a group stand side by side.
    group: members of each group.
    kind: `grpo` is (r − mean) / (std + 1e-6) with ddof 1, as the reference has it; `mean` leaves the division out
      (Dr. GRPO); `rloo` subtracts the mean of the *other* members; `batch` divides r − mean by its own standard
      deviation over the batch, with ddof 1, so that a group that varies more weighs more (REINFORCE++).
    counted: samples that the standard deviation of `batch` is over; None for all.
  """
  r = rewards.reshape(-1, group)
  centred = r - r.mean(1, keepdims=True)

  if kind == "grpo":
    centred = centred / (r.std(1, ddof=1, keepdims=True) + 1e-6)
  elif kind == "rloo":
    # r − (sum of the others) / (group − 1), written with the mean of all.
    centred = centred * group / (group - 1)
  elif kind == "batch":
    centred = centred / (_spread(centred.reshape(-1), counted) + 1e-6)
  return centred.reshape(-1)


def _spread(centred, counted):
  """Standard deviation of rewards less their groups' means, whose mean over any groups is 0."""
  kept = centred if counted is None else centred[counted]
  return ((kept * kept).sum() / max(len(kept) - 1, 1)) ** 0.5


@dataclasses.dataclass(frozen=True)
class PolicySettings:
  """What of `config.rl` the policy loss depends on; frozen, since compiled code reads it.

  Attributes:
    clip: ratios below 1 − clip get no gradient that lowers them.
    clip_high: ratios above 1 + clip_high get none that raises them; 0 means `clip`.
    dual_clip: where the advantage is negative, the loss of a token is at most dual_clip · |advantage|; 0 is no bound.
    importance_cap: bound of the weights that correct for the sampler's arithmetic; 0 leaves them out.
    kl_kind: k1, k2 or k3.
    entropy_weight: of the entropy bonus.
    average: `sample`, over the tokens of each sample, then over samples, or `token`, over all tokens alike.
    loss: `ppo` or `cispo`.
    kl_taper: tokens after which the KL counts half; 0 counts it alike everywhere.
    drop_empty: leave samples without an unmasked token out of the average over samples.
  """

  clip: float = 0.2
  clip_high: float = 0.0
  dual_clip: float = 0.0
  importance_cap: float = 0.0
  kl_kind: str = "k2"
  entropy_weight: float = 0.0
  average: str = "sample"
  loss: str = "ppo"
  kl_taper: float = 0.0
  drop_empty: bool = False

  @property
  def ratio_bounds(self) -> tuple[float, float]:
    """The least and the largest ratio: beyond them ppo gives no gradient outward, and cispo's weight is cut."""
    return 1 - self.clip, 1 + (self.clip_high or self.clip)


class PolicyLoss(NamedTuple):
  """The policy loss, and the numbers that are watched beside it.

  Attributes:
    loss: what is minimised.
    kl: to the reference, nats a token, by k3 whatever is trained with; all tokens alike, whatever the taper.
    entropy: of the policy, nats a token.
    clip_fraction: share of tokens whose ratio is outside the bounds.
    ratio_max: the largest ratio of each sample.
  """

  loss: Float[jax.Array, ""]
  kl: Float[jax.Array, ""]
  entropy: Float[jax.Array, ""]
  clip_fraction: Float[jax.Array, ""]
  ratio_max: Float[jax.Array, " batch"]


def policy_loss(
  scores: TokenScores,
  old_logprob: Float[Array, "batch length"],
  reference_logprob: Float[Array, "batch length"],
  advantages: Float[Array, " batch"],
  mask: Bool[Array, "batch length"],
  settings: PolicySettings,
  kl_weight: Float[Array, ""] | float = 0.01,
  importance: Float[Array, "batch length"] | None = None,
) -> PolicyLoss:
  """Clipped policy-gradient loss, PPO's or CISPO's, with KL to the reference as a loss term.

  Args:
    scores: of the current policy, for the sampled tokens.
    old_logprob: of the policy that sampled.
    reference_logprob: of the frozen SFT AV.
    advantages: of each sample.
    mask: True at sampled tokens.
    settings: see `PolicySettings`.
    kl_weight: of the KL term; may be traced, since it adapts from step to step.
    importance: constant weights of the policy term (trainer against sampler), or None.
  """
  # 1. The clipped surrogate: what a token contributes to the expected reward.
  ratio = jnp.exp(scores.logprob - old_logprob)
  if settings.loss == "cispo":
    surrogate = _weighted_logprob(scores.logprob, ratio, advantages[:, None], settings)
  else:
    surrogate = _surrogate(ratio, advantages[:, None], settings)
  if importance is not None:
    surrogate = surrogate * importance

  # 2. KL to the reference. k1 as a loss has zero expected gradient on policy: it is subtracted from the reward
  # instead. Whatever is trained with, k3 is reported: runs are compared by one estimator.
  gap = scores.logprob - reference_logprob
  kl = _kl(gap, "k3")
  kl_term = 0.0 if settings.kl_kind == "k1" else kl_weight * _kl(gap, settings.kl_kind)
  if settings.kl_taper:
    kl_term = kl_term * position_weights(mask.shape[1], settings.kl_taper)

  # 3. The average over tokens and samples.
  per_token = -surrogate + kl_term - settings.entropy_weight * scores.entropy
  low, high = settings.ratio_bounds
  clipped = ((ratio < low) | (ratio > high)).astype(jnp.float32)
  loss, kl, entropy, clip_fraction = (
    _average(x, mask, settings) for x in (per_token, kl, scores.entropy, clipped)
  )
  return PolicyLoss(loss, kl, entropy, clip_fraction, jnp.max(jnp.where(mask, ratio, 0.0), axis=1))


def _surrogate(ratio, advantages, settings: PolicySettings):
  """The smaller of the plain and the clipped term (PPO), bounded below where `dual_clip` says so."""
  surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, *settings.ratio_bounds) * advantages)
  if not settings.dual_clip:
    return surrogate

  # A negative advantage with a large ratio has no bound above: one unlikely token could outweigh the batch.
  bounded = jnp.maximum(surrogate, settings.dual_clip * advantages)
  return jnp.where(advantages < 0, bounded, surrogate)


def _weighted_logprob(logprob, ratio, advantages, settings: PolicySettings):
  """CISPO: sg(clip(ratio)) · advantage · log π (MiniMax-M1, arXiv 2506.13585, equations 4 and 5).

  The clip bounds the weight of a token's gradient and never takes the gradient away, as PPO's does. Where the ratio is
  1, both gradients are that of advantage · log π.
  """
  weight = jax.lax.stop_gradient(jnp.clip(ratio, *settings.ratio_bounds))
  return weight * advantages * logprob


def position_weights(length: int, taper: float) -> Float[np.ndarray, " length"]:
  """Weight 1 / (1 + t / taper) of the token at position t: 1 at the first, a half after `taper` tokens."""
  return (1 / (1 + np.arange(length) / taper)).astype(np.float32)


def _kl(gap, kind: str):
  """Estimates of KL from log π − log π_ref: k2 is ½ gap², k3 is r − 1 − log r with r = π_ref/π."""
  return 0.5 * gap * gap if kind == "k2" else jnp.exp(-gap) - 1 + gap


def _average(x, mask, settings: PolicySettings):
  """The mean over all tokens alike, or over each sample's tokens and then over samples."""
  if settings.average == "token":
    return masked_mean(x, mask)
  of_samples = masked_mean(x, mask, axis=1)
  return masked_mean(of_samples, mask.any(1)) if settings.drop_empty else jnp.mean(of_samples)


def importance_weights(
  old_logprob: Float[Array, "batch length"],
  sampler_logprob: Float[Array, "batch length"],
  cap: float,
) -> Float[jax.Array, "batch length"]:
  """Weight min(π_trainer / π_sampler, cap) of each token, which corrects for the sampler's other arithmetic."""
  return jnp.minimum(jnp.exp(old_logprob - sampler_logprob), cap)


def adapted_kl_weight(weight: float, kl: float, target: float) -> float:
  """The KL weight after a step whose KL was `kl`: at most 2 % up or down, towards `target` (Ziegler et al. 2019)."""
  return weight * (1 + 0.1 * min(max(kl / target - 1, -0.2), 0.2))
