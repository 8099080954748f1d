"""The formulas of `token_scores.py` that kernels and devices share."""

import jax.numpy as jnp

LEAST = -1e30  # in place of −∞, whose product with 0 is not 0


def raised(before, total, moment, top):
  """`total` and `moment` of a part, around a maximum that rose from `before` to `top`."""
  change = before - top
  decay = jnp.exp(change)
  return decay * total, decay * (moment + change * total)


def logit_gradient(log_p, chosen, entropy, g_logprob, g_entropy):
  """dl of logits with log-probabilities `log_p`, True in `chosen` at the targets."""
  pull = jnp.where(chosen, g_logprob, 0.0)
  return pull - jnp.exp(log_p) * (g_logprob + g_entropy * (log_p + entropy))
