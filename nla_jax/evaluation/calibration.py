"""How good probabilities are: Brier score, calibration error, and the reliability curve."""

import numpy as np

BINS = 10


def brier(probabilities: np.ndarray, truth: np.ndarray) -> float:
  """The mean squared error of probabilities; that of the base rate p is p (1 − p)."""
  return float(np.mean((np.asarray(probabilities) - np.asarray(truth, float)) ** 2))


def reliability(
  probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS
) -> list[tuple[float, float, int]]:
  """(mean probability, share that is true, claims) of bins of as many claims each, from the least probability."""
  order = np.argsort(probabilities, kind="stable")
  # Of equal width most bins would be all but empty.
  parts = [part for part in np.array_split(order, bins) if len(part)]
  p, y = np.asarray(probabilities, float), np.asarray(truth, float)
  return [(float(p[part].mean()), float(y[part].mean()), len(part)) for part in parts]


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
  """ECE: how far the bins' probabilities are from what is true, on average over claims."""
  parts = reliability(probabilities, truth, bins)
  return float(sum(n * abs(p - y) for p, y, n in parts) / sum(n for _, _, n in parts))
