"""How good probabilities are: AUC, Brier score, calibration error, the reliability curve, and their intervals."""

from collections.abc import Callable, Sequence

import numpy as np

BINS = 10
_DRAWS = 500  # of the bootstrap; an AUC sorts all claims at every one


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
  """The probability that a true claim scores above a false one, ties half; NaN where there is one kind alone."""
  truth = np.asarray(truth, bool)
  positives, negatives = int(truth.sum()), int((~truth).sum())
  if not positives or not negatives:
    return float("nan")
  _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
  # Of tied scores everyone has the mean rank.
  mean_rank = np.cumsum(counts) - (counts - 1) / 2
  total = mean_rank[rank][truth].sum() - positives * (positives + 1) / 2
  return float(total / (positives * negatives))


def auc_within(scores: np.ndarray, truth: np.ndarray, kinds: Sequence[str]) -> float:
  """The same within each kind of claim, weighed by its pairs: what is known beyond the kind."""
  scores, truth, kinds = np.asarray(scores), np.asarray(truth, bool), np.asarray(kinds)
  found, weights = [], []
  for kind in np.unique(kinds):
    mine = kinds == kind
    pairs = int(truth[mine].sum()) * int((~truth[mine]).sum())
    if pairs:
      found.append(auc(scores[mine], truth[mine]))
      weights.append(pairs)
  return float(np.average(found, weights=weights)) if found else float("nan")


def brier(probabilities: np.ndarray, truth: np.ndarray) -> float:
  """The mean squared error of probabilities; that of the base rate p is p (1 − p)."""
  return float(np.mean((np.asarray(probabilities) - np.asarray(truth, float)) ** 2))


def reliability(
  probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS
) -> list[tuple[float, float, int]]:
  """(mean probability, share that is true, claims) of bins of as many claims each, from the least probability."""
  order = np.argsort(probabilities, kind="stable")
  parts = [part for part in np.array_split(order, bins) if len(part)]
  p, y = np.asarray(probabilities, float), np.asarray(truth, float)
  return [(float(p[part].mean()), float(y[part].mean()), len(part)) for part in parts]


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
  """ECE: how far the bins' probabilities are from what is true, on average over claims."""
  parts = reliability(probabilities, truth, bins)
  return float(sum(n * abs(p - y) for p, y, n in parts) / sum(n for _, _, n in parts))


def interval(
  measure: Callable[[np.ndarray], float], groups: np.ndarray, seed: int = 0, draws: int = _DRAWS
) -> tuple[float, float] | None:
  """The 95 % interval of a measure of rows, with whole groups drawn; None of fewer than eight groups.

  Args:
    measure: from indices of rows, with repeats, to a number; NaN where it is not defined.
    groups: [n] the document group of each row.
    seed: of the draws.
    draws: how many.
  """
  names, member = np.unique(groups, return_inverse=True)
  # A percentile interval of so few is too narrow, see `intervals`.
  if len(names) < 8:
    return None
  rows = [np.flatnonzero(member == i) for i in range(len(names))]
  random, found = np.random.default_rng(seed), []
  for _ in range(draws):
    chosen = random.integers(len(names), size=len(names))
    found.append(measure(np.concatenate([rows[i] for i in chosen])))

  known = np.array(found)[np.isfinite(found)]
  if len(known) < draws / 2:
    return None
  low, high = np.quantile(known, [0.025, 0.975])
  return float(low), float(high)
