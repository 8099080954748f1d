"""How good probabilities are: AUC, Brier score, calibration error, the reliability curve, and their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.evaluation import intervals

BINS = 10
_DRAWS = 2000  # of the bootstrap
_FEW = intervals.FEW_GROUPS


class Ranks(NamedTuple):
  """Pairs of a true and a false claim, counted by the document groups that they are from.

  Attributes:
    won: [groups, groups] pairs whose true claim, of the row's group, scores above the false one, of the column's; ties
      count half.
    pairs: [groups, groups] all pairs.
  """

  won: np.ndarray
  pairs: np.ndarray

  @property
  def auc(self) -> float:
    """The probability that a true claim scores above a false one; NaN where there is one kind alone."""
    return float(self.won.sum() / self.pairs.sum()) if self.pairs.any() else float("nan")


def ranks(
  scores: np.ndarray,
  truth: np.ndarray,
  kinds: Sequence | None = None,
  groups: Sequence | None = None,
) -> Ranks:
  """Counts pairs of claims of the same kind.

  Args:
    scores: [n].
    truth: [n] whether each claim is true.
    kinds: [n], of which only claims of one are compared: what is known beyond the kind. All where None.
    groups: [n] the document group of each; one where None.
  """
  scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
  kinds = np.zeros(len(scores)) if kinds is None else np.asarray(kinds)
  names, member = np.unique(
    np.zeros(len(scores)) if groups is None else np.asarray(groups), return_inverse=True
  )
  of_group = np.eye(len(names))[member]  # [n, groups]

  won, pairs = np.zeros((len(names),) * 2), np.zeros((len(names),) * 2)
  for kind in np.unique(kinds):
    yes, no = (np.flatnonzero((kinds == kind) & (truth == value)) for value in (True, False))
    above = (scores[yes][:, None] > scores[no]) + 0.5 * (scores[yes][:, None] == scores[no])
    won += of_group[yes].T @ above @ of_group[no]
    pairs += np.outer(of_group[yes].sum(axis=0), of_group[no].sum(axis=0))
  return Ranks(won, pairs)


def auc_interval(
  ranks: Ranks, less: Ranks | None = None, seed: int = 0, draws: int = _DRAWS
) -> tuple[float, float] | None:
  """The 95 % interval of an AUC, or of its difference from another's of the same claims, with whole groups drawn.

  Args:
    ranks: of the claims.
    less: of the other scores; None for the AUC itself.
    seed: of the draws.
    draws: how many.

  Returns:
    (low, high); None of fewer than eight groups, or where draws often hold one kind of claim alone.
  """
  n = len(ranks.won)
  # A percentile interval of so few is too narrow, see `intervals`.
  if n < _FEW:
    return None
  counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)

  def drawn(one: Ranks) -> np.ndarray:
    won, pairs = (np.einsum("dg,gh,dh->d", counts, table, counts, optimize=True) for table in one)
    return won / np.where(pairs > 0, pairs, np.nan)

  found = drawn(ranks) - (0 if less is None else drawn(less))
  known = found[np.isfinite(found)]
  if len(known) < draws / 2:
    return None
  low, high = np.quantile(known, [0.025, 0.975])
  return float(low), float(high)


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
