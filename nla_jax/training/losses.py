"""Losses as functions of arrays. Natural logarithms; float32 throughout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.models.token_scores import TokenScores

KL_KINDS = ("k1", "k2", "k3")
ADVANTAGES = ("grpo", "mean", "rloo")
AVERAGES = ("sample", "token")


def masked_mean(x, mask, axis=None):
  """Mean of x where mask is True (0 where nothing is). The one masked mean: every token average goes through it."""
  mask = mask.astype(jnp.float32)
  return jnp.sum(jnp.where(mask > 0, x, 0.0), axis=axis) / jnp.maximum(
    jnp.sum(mask, axis=axis), 1.0
  )


def mask_count(mask):
  """What a masked mean over a part of a batch counts for in that over the whole: how many entries are True."""
  return jnp.sum(mask.astype(jnp.float32))


def sft_loss(scores: TokenScores, mask):
  """Mean negative log-probability of the supervised tokens (nats a token)."""
  return -masked_mean(scores.logprob, mask)


def group_advantages(rewards, group: int, kind: str = "grpo"):
  """Advantages of rewards [n·group], groups adjacent, relative to each group; a group of equal rewards gets zeros.

  `grpo` (the contract's) is (r − mean) / (std + 1e-6) with ddof 1; `mean` leaves the division out (Dr. GRPO); `rloo`
  takes the mean of the *other* members of the group.
  """
  r = rewards.reshape(-1, group)
  centred = r - r.mean(1, keepdims=True)
  if kind == "grpo":
    centred = centred / (r.std(1, ddof=1, keepdims=True) + 1e-6)
  elif kind == "rloo":
    centred = centred * group / (group - 1)
  return centred.reshape(-1)


class PolicyLoss(NamedTuple):
  """The policy loss and what to watch beside it: scalars, and `ratio_max` [batch], the largest of each sample."""

  loss: jax.Array
  kl: jax.Array
  entropy: jax.Array
  clip_fraction: jax.Array
  ratio_max: jax.Array


def policy_loss(
  scores: TokenScores,
  old_logprob,
  reference_logprob,
  advantages,
  mask,
  *,
  clip: float = 0.2,
  clip_high: float = 0.0,
  dual_clip: float = 0.0,
  importance=None,
  kl_weight: float = 0.01,
  kl_kind: str = "k2",
  entropy_weight: float = 0.0,
  average: str = "sample",
) -> PolicyLoss:
  """Clipped policy-gradient loss with KL to the reference as a loss term.

  k2 is ½(log π − log π_ref)², k3 is r − 1 − log r with r = π_ref/π. k1 as a loss has zero expected gradient on policy:
  it belongs in the reward, and then only k3 is reported here.

  Args:
    scores: of the current policy, [batch, length].
    old_logprob: of the policy that sampled.
    reference_logprob: of the frozen SFT AV.
    advantages: [batch].
    mask: [batch, length], True at sampled tokens.
    clip: ratios below 1 − clip get no gradient that lowers them.
    clip_high: ratios above 1 + clip_high get none that raises them; 0 means `clip`.
    dual_clip: where the advantage is negative, the loss of a token is at most dual_clip · |advantage|; 0 is no bound.
    importance: [batch, length], constant weights of the policy term (trainer against sampler), or None.
    kl_weight: of the KL term, may be traced.
    kl_kind: k1, k2 or k3.
    entropy_weight: of the entropy bonus.
    average: `sample`, over tokens, then over samples (the contract's), or `token`, over all tokens alike.
  """
  ratio = jnp.exp(scores.logprob - old_logprob)
  a = advantages[:, None]
  surrogate = jnp.minimum(ratio * a, jnp.clip(ratio, 1 - clip, 1 + (clip_high or clip)) * a)
  if dual_clip:
    surrogate = jnp.where(a < 0, jnp.maximum(surrogate, dual_clip * a), surrogate)
  if importance is not None:
    surrogate = surrogate * importance
  gap = scores.logprob - reference_logprob
  kl = 0.5 * gap * gap if kl_kind == "k2" else jnp.exp(-gap) - 1 + gap
  per_token = (
    -surrogate + (0.0 if kl_kind == "k1" else kl_weight * kl) - entropy_weight * scores.entropy
  )
  mean = (
    (lambda x: masked_mean(x, mask))
    if average == "token"
    else lambda x: jnp.mean(masked_mean(x, mask, axis=1))
  )
  clipped = ((ratio < 1 - clip) | (ratio > 1 + (clip_high or clip))).astype(jnp.float32)
  return PolicyLoss(
    mean(per_token),
    mean(kl),
    mean(scores.entropy),
    mean(clipped),
    jnp.max(jnp.where(mask, ratio, 0.0), axis=1),
  )


def importance_weights(old_logprob, sampler_logprob, cap: float):
  """min(π_trainer / π_sampler, cap) of each token: what the sampler's other arithmetic is corrected by."""
  return jnp.minimum(jnp.exp(old_logprob - sampler_logprob), cap)


def adapted_kl_weight(weight: float, kl: float, target: float) -> float:
  """The KL weight after a step whose KL was `kl`: up or down by at most 2 %, towards `target` (Ziegler et al. 2019)."""
  return weight * (1 + 0.1 * min(max(kl / target - 1, -0.2), 0.2))
