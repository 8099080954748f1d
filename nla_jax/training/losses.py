"""Losses as functions of arrays. Natural logarithms; float32 throughout."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.models.contraction import einsum
from nla_jax.parallel import sharding

KL_KINDS = ("k2", "k3")
REWARDS = ("mse", "cosine", "log")


def masked_mean(x, mask, axis=None):
  """Mean of x where mask is True (0 where nothing is). The one masked mean: every token average goes through it."""
  mask = mask.astype(jnp.float32)
  return jnp.sum(jnp.where(mask > 0, x, 0.0), axis=axis) / jnp.maximum(jnp.sum(mask, axis=axis), 1.0)


class TokenScores(NamedTuple):
  """Per token: log-probability of the chosen token, and entropy of the distribution (nats), each [batch, length]."""

  logprob: jax.Array
  entropy: jax.Array


def token_scores(hidden, matrix, targets, dtype=jnp.float32, *, chunk: int = 512) -> TokenScores:
  """Scores of chosen tokens without a [batch, length, vocabulary] array: logits live for one chunk at a time.

  Args:
    hidden: [batch, length, d_model], the state before each target.
    matrix: [vocabulary, d_model] unembedding.
    targets: [batch, length] int32.
    dtype: of the operands of the unembedding product.
    chunk: tokens whose logits exist at once on a device; their backward pass computes them again.
  """
  batch, length, d = hidden.shape
  chunks = min(-(-batch * length // (chunk * sharding.size(sharding.BATCH))), length)
  width = -(-length // chunks)  # columns a chunk: every device has rows of each
  pad = chunks * width - length
  rows = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0))).reshape(batch, chunks, width, d).swapaxes(0, 1)
  chosen = jnp.pad(targets, ((0, 0), (0, pad))).reshape(batch, chunks, width).swapaxes(0, 1)

  @jax.checkpoint
  def score(arguments):
    h, t = arguments
    logits = einsum("bsd,vd->bsv", h, matrix, dtype, "batch", None, "vocabulary")
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1)
    normaliser = jnp.log(total) + top[..., 0]
    if sharding.has_mesh():  # each device picks from its part of the vocabulary
      here = jnp.arange(logits.shape[-1]) == t[..., None]
      picked = jnp.sum(jnp.where(here, logits, 0.0), axis=-1)
    else:
      picked = jnp.take_along_axis(logits, t[..., None], axis=-1)[..., 0]
    entropy = normaliser - jnp.sum(weights * logits, axis=-1) / total
    return picked - normaliser, entropy

  logprob, entropy = jax.lax.map(score, (rows, chosen))
  unpad = lambda x: x.swapaxes(0, 1).reshape(batch, chunks * width)[:, :length]
  return TokenScores(unpad(logprob), unpad(entropy))


def sft_loss(scores: TokenScores, mask):
  """Mean negative log-probability of the supervised tokens (nats a token)."""
  return -masked_mean(scores.logprob, mask)


def group_advantages(rewards, group: int):
  """(r − mean) / (std + 1e-6) within each group, standard deviation with ddof 1; rewards [n·group], groups adjacent.

  The contract's group-relative advantage. A group whose rewards are all equal gets zeros.
  """
  r = rewards.reshape(-1, group)
  return ((r - r.mean(1, keepdims=True)) / (r.std(1, ddof=1, keepdims=True) + 1e-6)).reshape(-1)


class PolicyLoss(NamedTuple):
  """The policy loss and what to watch beside it, all scalars; `ratio_max` over supervised tokens."""

  loss: jax.Array
  kl: jax.Array
  entropy: jax.Array
  clip_fraction: jax.Array
  ratio_max: jax.Array


def policy_loss(scores: TokenScores, old_logprob, reference_logprob, advantages, mask, *, clip: float = 0.2,
                kl_weight: float = 0.01, kl_kind: str = "k2", entropy_weight: float = 0.0) -> PolicyLoss:
  """Clipped policy-gradient loss with KL to the reference as a loss term; mean over tokens, then over samples.

  k2 is ½(log π − log π_ref)², k3 is r − 1 − log r with r = π_ref/π. (k1 as a loss has zero expected gradient on
  policy, so it is not offered.)

  Args:
    scores: of the current policy, [batch, length].
    old_logprob: of the policy that sampled.
    reference_logprob: of the frozen SFT AV.
    advantages: [batch].
    mask: [batch, length], True at sampled tokens.
  """
  ratio = jnp.exp(scores.logprob - old_logprob)
  a = advantages[:, None]
  surrogate = jnp.minimum(ratio * a, jnp.clip(ratio, 1 - clip, 1 + clip) * a)
  gap = scores.logprob - reference_logprob
  kl = 0.5 * gap * gap if kl_kind == "k2" else jnp.exp(-gap) - 1 + gap
  per_token = -surrogate + kl_weight * kl - entropy_weight * scores.entropy
  mean = lambda x: jnp.mean(masked_mean(x, mask, axis=1))
  clipped = (jnp.abs(ratio - 1) > clip).astype(jnp.float32)
  return PolicyLoss(mean(per_token), mean(kl), mean(scores.entropy), mean(clipped),
                    jnp.max(jnp.where(mask, ratio, 0.0)))


def reconstruction_reward(errors, failed, kind: str = "mse"):
  """Reward of each explanation from its mse_nrm; −2 (−ln 2 in log form) where it failed.

  A failed explanation (does not parse, hits the length cap, overflows the AR) must not score 0, the best there is.
  """
  if kind == "log":
    return jnp.where(failed, -jnp.log(2.0), -jnp.log(jnp.maximum(errors, 1e-8)))
  reward = -errors if kind == "mse" else 1 - errors / 2
  return jnp.where(failed, -2.0, reward)
