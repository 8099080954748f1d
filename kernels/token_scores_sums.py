"""Sums around a maximum that rises: the rule of `token_scores.py` that all its parts share."""
import jax.numpy as jnp

LEAST = -1e30  # in place of −∞, whose product with 0 is not 0


def raised(before, total, moment, top):
  """`total` and `moment` of a part, around a maximum that rose from `before` to `top`."""
  change = before - top
  decay = jnp.exp(change)
  return decay * total, decay * (moment + change * total)
