"""From hits to a finding: scores with intervals over documents, the gates, paired comparisons, and a verdict."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.evaluation.findings import Gate, Score, void
from nla_jax.evaluation.intervals import Estimate, bootstrap_mean
from nla_jax.evaluation.subject import Subject

SKYLINE_SHARE = 0.8  # of the maximum, that the best text must reach
_PARSE_RATE = 0.95
# The rows that a verdict compares explanations with, the hardest to beat last.
_RIVALS = ("shuffled", "last_words")


class Column(NamedTuple):
  """One judge on one set of items.

  Attributes:
    name: of the table's column.
    judge: whose column it is.
    hits: [n] share of the right answer of each item, by row.
    groups: [n] the document of each item.
    chance: of a judge that reads nothing.
    maximum: what a perfect judge of perfect words would score.
  """

  name: str
  judge: str
  hits: Mapping[str, np.ndarray]
  groups: np.ndarray
  chance: float
  maximum: float = 1.0

  def estimate(self, subject: Subject, row: str) -> Estimate:
    """The mean of a row, with its interval over documents."""
    samples = subject.settings.bootstrap_samples
    return bootstrap_mean(self.hits[row], self.groups, samples=samples, seed=subject.seed)

  def above(self, subject: Subject, row: str, other: str) -> Estimate:
    """One row less another on the same items, paired."""
    gap, samples = self.hits[row] - self.hits[other], subject.settings.bootstrap_samples
    return bootstrap_mean(gap, self.groups, samples=samples, seed=subject.seed)


def scores(columns: Sequence[Column], subject: Subject, gates: Sequence[Gate]) -> list[Score]:
  """The table of columns; those of a judge that failed its planted signal are marked as void."""
  failed = {gate.name for gate in gates if not gate.passed}
  found = []
  for column in columns:
    unsound = planted_name(column.judge) in failed
    name = void(column.name) if unsound else column.name
    for row in column.hits:
      one = column.estimate(subject, row)
      found.append(Score(row, name, one.value, one.ci95, one.n, column.chance))
  return found


def planted_name(judge: str) -> str:
  """The name of the planted-signal gate of a judge."""
  return f"planted signal, {judge}"


def column_gates(column: Column, subject: Subject) -> list[Gate]:
  """Whether the best text is read well enough, and another row's text no better than chance."""
  found = []
  if "skyline" in column.hits:
    value, asked = column.hits["skyline"].mean(), SKYLINE_SHARE * column.maximum
    detail = f"{value:.2f} of {column.maximum:g}, at least {asked:.2f} is asked"
    found.append(Gate(f"skyline, {column.name}", bool(value >= asked), detail))

  if "shuffled" in column.hits:
    one = column.estimate(subject, "shuffled")
    # Two standard errors: of the interval where there is one, of independent items otherwise.
    error = np.sqrt(column.chance * (1 - column.chance) / max(one.n, 1))
    if one.ci95 is not None:
      error = max(error, (one.ci95[1] - one.ci95[0]) / 3.92)
    most = column.chance + 2 * error
    detail = f"{one.value:.2f}, at most {most:.2f} is chance and two standard errors"
    found.append(Gate(f"shuffled at chance, {column.name}", bool(one.value <= most), detail))
  return found


def subject_gates(subject: Subject, explanations: Sequence[str | None]) -> list[Gate]:
  """Whether explanations parse, and whether held-out documents were kept out of training."""
  rate = float(np.mean([text is not None for text in explanations]))
  trained = {
    group
    for group, split in zip(subject.store.documents.groups, subject.store.documents.splits)
    if split != "held_out"
  }
  shared = set(subject.groups.tolist()) & trained
  return [
    Gate("parse rate", rate >= _PARSE_RATE, f"{rate:.2f}, at least {_PARSE_RATE} is asked"),
    Gate("documents disjoint from training", not shared, f"{len(shared)} groups in both"),
  ]


def verdict(columns: Sequence[Column], subject: Subject, gates: Sequence[Gate], what: str) -> str:
  """One sentence about the first column whose judge is sound; it says no more than intervals and gates allow.

  Args:
    columns: the most telling one first.
    subject: of the evaluation.
    gates: of all columns.
    what: the explanations do, where they do: "say which text comes next".
  """
  failed = {gate.name for gate in gates if not gate.passed}
  sound = [one for one in columns if planted_name(one.judge) not in failed]
  if not sound:
    return f"Nothing is known: no judge found its planted signal, so none can say whether explanations {what}."

  column = sound[0]
  one = column.estimate(subject, "explanation")
  scored = f"explanations score {one.value:.2f}{_interval(one)}, chance {column.chance:.2f}"
  # What makes the number mean nothing comes before the number.
  if f"skyline, {column.name}" in failed:
    return f"The items or the judge are too weak ({column.name}): {scored}, and even the context itself falls short."
  if f"shuffled at chance, {column.name}" in failed:
    return f"The items give the answer away ({column.name}): {scored}, and another row's explanation is above chance."

  rivals = [row for row in _RIVALS if row in column.hits]
  beaten = {row: column.above(subject, "explanation", row) for row in rivals}
  lost = [row for row, gap in beaten.items() if gap.ci95 is None or gap.ci95[0] <= 0]
  shown = ", ".join(
    f"{gap.value:+.2f}{_interval(gap)} over {_named(r)}" for r, gap in beaten.items()
  )
  if "shuffled" in lost:
    return f"It is not shown that explanations {what} ({column.name}): {scored}; {shown}."
  if lost:
    return (
      f"Explanations {what}, no better than quoting as shown ({column.name}): {scored}; {shown}."
    )
  return f"Explanations {what} ({column.name}): {scored}; {shown}."


def _interval(one: Estimate) -> str:
  return f" [{one.ci95[0]:.2f}, {one.ci95[1]:.2f}]" if one.ci95 else " (one group: no interval)"


def _named(row: str) -> str:
  return row.replace("_", " ")


def illegible(words: Column, code: Column, subject: Subject, name: str) -> Score | None:
  """What the AR reads beyond a judge of words, in explanations more than in the teacher's text.

  (AR − words)(explanation) − (AR − words)(teacher): the second term takes out that the AR was trained to read and the
  judge was not. Above zero is an alarm that the explanations hold a code. None without a teacher's text.
  """
  rows = ("explanation", "teacher")
  if any(row not in column.hits for column in (words, code) for row in rows):
    return None
  gaps = [code.hits[row] - words.hits[row] for row in rows]
  samples = subject.settings.bootstrap_samples
  one = bootstrap_mean(gaps[0] - gaps[1], words.groups, samples=samples, seed=subject.seed)
  return Score("illegible information", name, one.value, one.ci95, one.n, 0.0)
