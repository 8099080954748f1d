"""How well scores tell true items from false ones: the area under the ROC curve, and its interval over groups."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.evaluation import intervals

_DRAWS = 2000  # of the bootstrap


class Ranks(NamedTuple):
  """Pairs of a true and a false item (a claim, a question), counted by the document groups that they are from.

  Attributes:
    won: [groups, groups] pairs whose true item, of the row's group, scores above the false one, of the column's; ties
      count half.
    pairs: [groups, groups] all pairs.
  """

  won: np.ndarray
  pairs: np.ndarray

  @property
  def auc(self) -> float:
    """The probability that a true item scores above a false one; NaN where there is one kind alone."""
    return float(self.won.sum() / self.pairs.sum()) if self.pairs.any() else float("nan")


def ranks(
  scores: np.ndarray,
  truth: np.ndarray,
  kinds: Sequence | None = None,
  groups: Sequence | None = None,
) -> Ranks:
  """Counts pairs of items of the same kind.

  Args:
    scores: [n].
    truth: [n] whether each item is true.
    kinds: [n], of which only items of one are compared: what is known beyond the kind. All where None.
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
  """The 95 % interval of an AUC, or of its difference from another's of the same items, with whole groups drawn.

  Args:
    ranks: of the items.
    less: of the other scores; None for the AUC itself.
    seed: of the draws.
    draws: how many.

  Returns:
    (low, high); None of fewer than eight groups, or where draws often hold true or false items alone.
  """
  n = len(ranks.won)
  # A percentile interval of so few is too narrow, see `intervals`.
  if n < intervals.FEW_GROUPS:
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
