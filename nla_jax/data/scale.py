"""The scale α at which an activation is injected: the norm that every vector is given before the AV reads it."""

import numpy as np

from nla_jax.data.positions import FRACTIONS
from nla_jax.data.store.store import Store

QUANTILE = 0.75  # of the norms: the slot then looks to the AV's blocks like most of the target's own residuals


def injection_scale(store: Store) -> float:
  """The 75th percentile of the norms of all activations that are trained on, for a config that names no α."""
  rows = np.concatenate([store.rows(split) for split, _ in FRACTIONS])
  return float(np.quantile(store.read("norm", rows), QUANTILE))
