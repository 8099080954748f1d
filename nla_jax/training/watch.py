"""What held-out activations show of a pair while it is trained."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from nla_jax.autoencoder.fve import fve, mse_nrm
from nla_jax.autoencoder.pair import Pair


def watch_pair(
  pair: Pair,
  learner_params: Mapping[str, Any],
  fixed_ar: Any,
  vectors: Float[np.ndarray, "n d_model"],
  key: jax.Array,
  baseline: float,
) -> dict[str, float]:
  """Scores one explanation of each activation, by the AR that is trained and by one that is not.

  Args:
    pair: modules and prompts.
    learner_params: {"av": parameters, "ar": parameters} of now; they are only read.
    fixed_ar: parameters of the AR that is not trained.
    vectors: raw activations.
    key: of sampling; with the same key, two looks differ by the parameters alone.
    baseline: variance of the normalised activations.

  Returns:
    fve_held_out (by the trained AR), fve_fixed, and duplicates, the share of explanations that say what another says.
  """
  texts, _ = pair.sample_explanations(learner_params["av"], vectors, key, batch=len(vectors))

  def score(ar_params) -> float:
    return float(
      fve(mse_nrm(pair.reconstruct(ar_params, texts, batch=len(texts)), vectors), baseline)
    )

  # What does not parse reads as an empty explanation, as in the evaluation.
  return {
    "fve_held_out": score(learner_params["ar"]),
    "fve_fixed": score(fixed_ar),
    "duplicates": 1 - len(set(texts)) / len(texts),
  }
