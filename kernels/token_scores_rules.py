"""The formulas of `token_scores.py` that kernels and devices share."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

LEAST = -1e30  # in place of −∞, whose product with 0 is not 0


def raised(
  before: Float[jax.Array, "*#rows"],
  total: Float[jax.Array, "*#rows"],
  moment: Float[jax.Array, "*#rows"],
  top: Float[jax.Array, "*#rows"],
) -> tuple[jax.Array, jax.Array]:
  """The sums `total` and `moment` of a part of the vocabulary, around a maximum that rose from `before` to `top`."""
  change = before - top
  decay = jnp.exp(change)
  return decay * total, decay * (moment + change * total)


def logit_gradient(
  log_p: Float[jax.Array, "*logits"],
  chosen: Bool[jax.Array, "*logits"],
  entropy: Float[jax.Array, "*#logits"],
  g_logprob: Float[jax.Array, "*#logits"],
  g_entropy: Float[jax.Array, "*#logits"],
) -> Float[jax.Array, "*logits"]:
  """The gradient of logits.

  Args:
    log_p: log-probabilities of a block of logits.
    chosen: True at the targets.
    entropy: of each row; like the two gradients below it broadcasts over the vocabulary.
    g_logprob: gradient of each row's log-probability.
    g_entropy: gradient of each row's entropy.
  """
  # dl = g_logprob · (onehot − p) − g_entropy · p · (log p + H)
  pull = jnp.where(chosen, g_logprob, 0.0)
  return pull - jnp.exp(log_p) * (g_logprob + g_entropy * (log_p + entropy))
