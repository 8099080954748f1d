"""What the AR knows of an activation that no reader of words does: illegible information.

(A − W)(explanation) − (A − W)(teacher's text), where A is the share of questions (`choices`) that the AR answers and W
the share that a reader of words does. The second term removes the difference in reading strength: the AR was trained to
read, the reader of words was not.
"""

from typing import NamedTuple

import numpy as np

from nla_jax.evaluation import variants
from nla_jax.evaluation.choices import (
  OPTIONS,
  Choices,
  Choose,
  draw_choices,
  right_by_ar,
  right_by_words,
)
from nla_jax.evaluation.findings import Gate, Score, void
from nla_jax.evaluation.intervals import Estimate, bootstrap_mean
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.transforms import transform

ROW = "illegible information"
AXES = ("right choices of the reader of words that are lost", "FVE that is lost")
_ARMS = {"easy": False, "hard": True}


class Judge(NamedTuple):
  """A reader of words.

  Attributes:
    name: as tables show it.
    choose: from a text and options to a score of each.
  """

  name: str
  choose: Choose


class Compared(NamedTuple):
  """What the readers found.

  Attributes:
    scores: cells of the suite's table.
    gates: whether the reader of words can read.
    curves: of each transform (what the reader of words lost, what FVE lost), by kind of transform.
    verdict: one sentence; empty where nothing can be said.
  """

  scores: list[Score]
  gates: list[Gate]
  curves: dict[str, list[tuple[float, float]]]
  verdict: str


def compare(subject: Subject, judge: Judge, transforms: list[str]) -> Compared:
  """Lets both readers answer of the explanations, of their transforms and of the teacher's text.

  Args:
    subject: the rows.
    judge: the reader of words.
    transforms: names of transforms, for the matched-information curve.
  """
  questions = {arm: draw_choices(subject, hard=hard) for arm, hard in _ARMS.items()}
  texts, teacher = subject.sampled.texts, subject.teacher_texts
  sources = {"explanation": texts} | ({"teacher": teacher} if teacher is not None else {})

  # 1. Who is right about what, by arm, row and reader.
  scores, gates, gaps = [], [], {}
  for arm, asked in questions.items():
    columns = {judge.name: f"choice, {arm}, {judge.name}", "AR": f"choice, {arm}, AR"}
    right = {row: _right(subject, judge, several, asked) for row, several in sources.items()}

    # 2. A reader that cannot read the teacher's text cannot say what is illegible.
    if "teacher" in right:
      gate, gap = _gate(subject, arm, judge, right["teacher"][0]), _gap(right)
      gates.append(gate)
      if not gate.passed:
        columns[judge.name] = void(columns[judge.name])
      illegible = _estimate(subject, gap)
      gaps[arm] = (illegible, gate.passed)
      column = f"choice, {arm}, AR − {judge.name}"
      scores.append(_score(ROW, column if gate.passed else void(column), illegible, 0.0))
    for row, found in right.items():
      for name, values in zip(columns.values(), found):
        scores.append(_score(row, name, _estimate(subject, values), 1 / OPTIONS))

  curves = matched_information(subject, judge, questions["hard"], transforms)
  said = (
    _verdict(gaps)
    if teacher is not None
    else "Without a teacher's text illegible information is not measured."
  )
  return Compared(scores, gates, curves, said)


def matched_information(
  subject: Subject, judge: Judge, asked: Choices, transforms: list[str]
) -> dict[str, list[tuple[float, float]]]:
  """Of each transform (right choices that the reader of words lost, FVE that was lost), by whether meaning stays.

  A transform with both removed information; one with FVE lost alone removed a code.
  """
  reader = variants.readers(subject)[0]
  plain = variants.plain_errors(subject, reader)
  before = right_by_words(judge.choose, subject.sampled.texts, asked)

  points = {}
  for name in transforms:
    kind = "meaning stays" if transform(name).preserves else "meaning changes"
    after = right_by_words(judge.choose, variants.texts_of(subject, name), asked)
    lost = (variants.errors_of(subject, name, reader) - plain).mean() / subject.baseline
    points.setdefault(kind, []).append((float((before - after).mean()), float(lost)))
  return points


def _right(subject: Subject, judge: Judge, texts, asked: Choices) -> tuple[np.ndarray, np.ndarray]:
  """[n] of the reader of words, and of the AR."""
  by_ar = right_by_ar(subject.nla, texts, asked, subject.activations, subject.batch)
  return right_by_words(judge.choose, texts, asked), by_ar


def _gap(right: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """[n] (A − W)(explanation) − (A − W)(teacher's text)."""
  (words, ar), (teacher_words, teacher_ar) = right["explanation"], right["teacher"]
  return (ar - words) - (teacher_ar - teacher_words)


def _gate(subject: Subject, arm: str, judge: Judge, right: np.ndarray) -> Gate:
  found = _estimate(subject, right)
  low = found.ci95[0] if found.ci95 else found.value
  detail = f"{found.value:.2f} right, at least {low:.2f}; chance is {1 / OPTIONS:.2f}"
  return Gate(f"{judge.name} reads the teacher's text, {arm}", low > 1 / OPTIONS, detail)


def _estimate(subject: Subject, values: np.ndarray) -> Estimate:
  settings = subject.settings
  fixed = {"samples": settings.bootstrap_samples, "seed": settings.seed}
  return bootstrap_mean(values, subject.groups, **fixed)


def _score(row: str, column: str, found: Estimate, chance: float) -> Score:
  return Score(row, column, found.value, found.ci95, found.n, chance)


def _verdict(gaps: dict[str, tuple[Estimate, bool]]) -> str:
  """The sentence about illegible information."""
  usable = {arm: one for arm, (one, passed) in gaps.items() if passed and one.ci95}
  if not usable:
    return "Whether the words hide information cannot be said: the reader of words does not read the teacher's text."
  arm, worst = max(usable.items(), key=lambda item: item[1].ci95[0])
  low, high = worst.ci95
  interval = f"{worst.value:+.2f} [{low:+.2f}, {high:+.2f}]"
  if low > 0:
    return f"The AR knows more than the words say: {interval} of the {arm} choices are illegible."
  return f"The AR knows no more than a reader of the words ({arm} choices {interval})."
