"""How many claims are true, by field and level, beside what luck alone would make true."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.explanation import Claim
from nla_jax.evaluation.claims.parse import LEVELS, NEXT, claims_of
from nla_jax.evaluation.claims.verdict import Context, judged
from nla_jax.evaluation.findings import Score
from nla_jax.evaluation.intervals import Estimate, bootstrap_mean

FEWEST = 5  # claims of a field or a level that are a column of the table


class Verdicts(NamedTuple):
  """All claims of some explanations with their verdicts; claims that nobody can judge are left out.

  Attributes:
    claims: with verdicts.
    actual: of each `Next` claim whether its word comes; None of others.
    row: [claims] the explanation of each.
    made: claims before any was left out.
  """

  claims: list[Claim]
  actual: list[bool | None]
  row: np.ndarray
  made: int

  @property
  def true(self) -> np.ndarray:
    """[claims] whether each is true."""
    return np.array([one.verdict for one in self.claims], bool)


def verdicts(
  texts: Sequence[str | None],
  contexts: Sequence[Context],
  claims: Sequence[Sequence[Claim]] | None = None,
) -> Verdicts:
  """Judges the claims of texts [n] by contexts [n].

  Args:
    texts: explanations; None makes no claims.
    contexts: what each is judged by.
    claims: of each text, where they were found already. A verdict that a provider gave stays.
  """
  found, actual, rows, made = [], [], [], 0
  for i, (text, context) in enumerate(zip(texts, contexts)):
    several = claims_of(text) if claims is None else claims[i]
    made += len(several)

    # What a reader of words has judged already is not judged again by rules that it knows better than.
    for given, one in zip(several, judged(several, context)):
      claim = one.claim if given.verdict is None else given
      if claim.verdict is not None:
        found.append(claim)
        actual.append(one.actual)
        rows.append(i)
  return Verdicts(found, actual, np.array(rows, np.int64), made)


def precision_scores(
  row: str, found: Verdicts, lucky: Verdicts | None, groups: np.ndarray, **bootstrap
) -> list[Score]:
  """The cells of one row of the table.

  Args:
    row: its name.
    found: the claims, judged by their own contexts.
    lucky: the same claims, judged by contexts of other documents; None leaves the chance out.
    groups: [rows] the document group of each explanation.
    bootstrap: `samples` and `seed` of the intervals.
  """
  scores = []

  def add(column: str, wanted, value=lambda claim, actual: claim.verdict) -> None:
    mine, chance = (None if one is None else _values(one, wanted, value) for one in (found, lucky))
    if len(mine[0]) < FEWEST:
      return

    estimate = bootstrap_mean(mine[0], groups[mine[1]], **bootstrap)
    luck = float(np.mean(chance[0])) if chance is not None and len(chance[0]) else None
    scores.append(_score(row, column, estimate, luck))

  # `Next` is true by construction for the teacher and would decide every mean: each field stands alone.
  add("precision, all", lambda claim: True)
  for field in fields_in(found):
    add(f"precision, {field}", lambda claim, field=field: claim.field == field)
  add(
    "Next is the word that comes", lambda claim: claim.field == NEXT, lambda claim, actual: actual
  )
  for level in LEVELS:
    add(f"precision, {level}", lambda claim, level=level: claim.level == level)
  add(
    "related, of what is false",
    lambda claim: claim.verdict is False and claim.related is not None,
    lambda claim, actual: claim.related,
  )

  n = len(groups)
  per_row = np.bincount(found.row, minlength=n).astype(float)
  scores.append(
    _score(row, "claims an explanation", bootstrap_mean(per_row, groups, **bootstrap), None)
  )
  return scores


def fields_in(found: Verdicts) -> list[str]:
  """The fields of the claims, in the order in which they first appear."""
  return list(dict.fromkeys(one.field for one in found.claims))


def _values(found: Verdicts, wanted, value) -> tuple[np.ndarray, np.ndarray]:
  """Values and rows of the claims that are wanted."""
  places = [i for i, claim in enumerate(found.claims) if wanted(claim)]
  values = [float(value(found.claims[i], found.actual[i])) for i in places]
  return np.array(values), found.row[places]


def _score(row: str, column: str, found: Estimate, chance: float | None) -> Score:
  return Score(row, column, found.value, found.ci95, found.n, chance)
