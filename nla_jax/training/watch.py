"""What is watched of a pair while RL trains it: held-out FVE, the same under an AR that does not learn, and retention.

A reward that rises may be skill or a code between the two models. A code shows as FVE that the fixed AR cannot read,
that does not survive another order of words, or that comes with few different texts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nla_jax.autoencoder.fve import fve, mse_nrm, retention
from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.rewording import shuffle_words

ROWS = 48  # held-out activations that are enough to see a trend
_SEED = (
  0  # of the orders of words: the same at every call, so that a curve moves with the pair alone
)


def watch_pair(
  pair: Pair,
  learner_params: Mapping[str, Any],
  fixed_ar: Any | None,
  vectors: np.ndarray,
  key,
  baseline: float,
) -> dict[str, float]:
  """Samples an explanation of each held-out activation and measures it.

  Args:
    pair: modules and prompts.
    learner_params: {"av": parameters, "ar": parameters} of now; they are only read.
    fixed_ar: parameters of an AR that does not learn, such as that of SFT; or None.
    vectors: [k, d_model] held-out activations, about `ROWS` of them.
    key: random key of the draws; equal keys make the points of a curve comparable.
    baseline: `baseline_variance` of these activations, or of all held-out ones.

  Returns:
    "fve_held_out", under the live AR, and "duplicates", 1 − different texts / texts that parse. "fve_fixed" where there
    is a fixed AR. "retention_shuffle", under the live AR, where there is an FVE above zero to keep. An answer that does
    not parse is scored as an empty explanation.
  """
  # One batch, so that one shape is compiled.
  batch = len(vectors)
  texts, _ = pair.sample_explanations(learner_params["av"], vectors, key, batch=batch)

  def errors(ar_params, several: list[str | None]) -> np.ndarray:
    return np.asarray(mse_nrm(pair.reconstruct(ar_params, several, batch=batch), vectors))

  live = errors(learner_params["ar"], texts)
  shuffled = errors(learner_params["ar"], shuffle_words(texts, _SEED))
  found = {"fve_held_out": _fve(live, baseline)}
  if fixed_ar is not None:
    found["fve_fixed"] = _fve(errors(fixed_ar, texts), baseline)

  # What cannot be said is left out, never written as zero: a curve would show it as a fall.
  kept = retention(shuffled, live, baseline)
  if kept is not None:
    found["retention_shuffle"] = kept
  parsed = [text for text in texts if text is not None]
  if parsed:
    found["duplicates"] = 1 - len(set(parsed)) / len(parsed)
  return found


def _fve(errors: np.ndarray, baseline: float) -> float:
  return float(fve(errors.astype(np.float64), baseline))
