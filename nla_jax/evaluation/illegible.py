"""What the AR knows of an activation that no reader of words does: illegible information.

(A − W)(explanation) − (A − W)(teacher's text), where A is the share of questions (`choices`) that the AR answers and W
the share that the best reader of words does. The second term removes the difference in reading strength: the AR was
trained to read, the reader of words was not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.evaluation import variants
from nla_jax.evaluation.choices import (
  OPTIONS,
  Choices,
  draw_choices,
  first_choices,
  right_by_ar,
  right_by_words,
)
from nla_jax.evaluation.findings import Gate, Score, void
from nla_jax.evaluation.intervals import Estimate, bootstrap_mean
from nla_jax.evaluation.judges.judge import Judge
from nla_jax.evaluation.judges.planted import planted_choices
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.transforms import transform

ROW = "illegible information"
AXES = ("right choices of the reader of words that are lost", "FVE that is lost")
_ARMS = {"easy": False, "hard": True}
_MATCHED = 64  # rows of the matched-information curve: every transform of each is read once more


class Compared(NamedTuple):
  """What the readers found.

  Attributes:
    scores: cells of the suite's table.
    gates: whether the readers of words can read.
    curves: of each transform (what the reader of words lost, what FVE lost), by whether meaning stays.
    verdict: one sentence; empty where nothing can be said.
  """

  scores: list[Score]
  gates: list[Gate]
  curves: dict[str, list[tuple[float, float]]]
  verdict: str


class _Arm(NamedTuple):
  """What came of one kind of questions.

  Attributes:
    scores: cells of the table.
    gates: of each reader of words.
    best: the reader of words that reads the teacher's text best; None where none reads it.
    illegible: what the AR knows beyond it; None without such a reader.
  """

  scores: list[Score]
  gates: list[Gate]
  best: Judge | None
  illegible: Estimate | None


def compare(subject: Subject, judges: Sequence[Judge], transforms: Sequence[str]) -> Compared:
  """Lets the readers of words and the AR answer of the explanations, their transforms and the teacher's text.

  Args:
    subject: the rows.
    judges: readers of words.
    transforms: names of transforms, for the matched-information curve.
  """
  if subject.teacher_texts is None:
    return Compared([], [], {}, "Without a teacher's text illegible information is not measured.")

  questions = {name: draw_choices(subject, hard=hard) for name, hard in _ARMS.items()}
  arms = {name: _arm(subject, judges, name, asked) for name, asked in questions.items()}

  scores = [one for arm in arms.values() for one in arm.scores]
  gates = [one for arm in arms.values() for one in arm.gates]

  # The topic alone answers easy questions, so the curve is drawn of hard ones where a reader can answer those.
  curves, drawn = {}, next((name for name in reversed(_ARMS) if arms[name].best is not None), None)
  if drawn is not None:
    try:
      curves = matched_information(subject, arms[drawn].best, questions[drawn], transforms)
    except NLAError as error:
      gates.append(Gate("matched information", False, str(error)))
  return Compared(scores, gates, curves, _verdict(arms))


def _arm(subject: Subject, judges: Sequence[Judge], name: str, asked: Choices) -> _Arm:
  """Who is right about what."""
  sources = {"explanation": subject.sampled.texts, "teacher": subject.teacher_texts}
  by_ar = {
    row: right_by_ar(subject.nla, texts, asked, subject.activations, subject.batch)
    for row, texts in sources.items()
  }
  scores = [_choice(subject, row, name, "AR", right) for row, right in by_ar.items()]

  gates, readers = [], []
  for judge in judges:
    try:
      right = {row: right_by_words(judge, texts, asked) for row, texts in sources.items()}
      signal = planted_choices(judge, _carriers(subject), asked.words, subject.seed)
    except NLAError as error:
      # One by provider that does not answer costs no other.
      gates.append(Gate(f"{judge.name} answers, {name}", False, str(error)))
      continue

    # A reader that cannot read the teacher's text cannot say what is illegible.
    gate = _reads(subject, judge, name, right["teacher"])
    found = signal.gate(judge.name)
    gates += [gate, found._replace(name=f"{found.name}, {name}")]

    # What a reader that failed says is shown and marked, and nothing is concluded from it.
    passed = gate.passed and signal.passed
    cells = [_choice(subject, row, name, judge.name, one) for row, one in right.items()]
    scores += [one if passed else one._replace(column=void(one.column)) for one in cells]
    if passed:
      readers.append((float(right["teacher"].mean()), judge, right))

  if not readers:
    return _Arm(scores, gates, None, None)

  # The best reader leaves the least that nobody can read: the alarm is not one reader's weakness.
  _, best, right = max(readers, key=lambda one: one[0])
  gaps = {row: by_ar[row] - right[row] for row in sources}
  illegible = _estimate(subject, gaps["explanation"] - gaps["teacher"])
  column = f"choice, {name}, AR − {best.name}"
  cell = Score(ROW, column, illegible.value, illegible.ci95, illegible.n, 0.0)
  return _Arm([*scores, cell], gates, best, illegible)


def matched_information(
  subject: Subject, judge: Judge, asked: Choices, transforms: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
  """Of each transform (right choices that the reader of words lost, FVE that was lost), by whether meaning stays.

  A transform with both removed information; one with FVE lost alone removed a code.
  """
  n = min(subject.n, _MATCHED)
  reader, few = variants.readers(subject)[0], first_choices(asked, n)
  plain = variants.plain_errors(subject, reader)[:n]
  before = right_by_words(judge, subject.sampled.texts[:n], few)

  points = {}
  for name in transforms:
    kind = "meaning stays" if transform(name).preserves else "meaning changes"
    after = right_by_words(judge, variants.texts_of(subject, name)[:n], few)
    lost = (variants.errors_of(subject, name, reader)[:n] - plain).mean() / subject.baseline
    points.setdefault(kind, []).append((float((before - after).mean()), float(lost)))
  return points


def _carriers(subject: Subject) -> list[str | None]:
  """Explanations of other rows: they say nothing of a row's options."""
  return [subject.sampled.texts[i] for i in subject.other_rows]


def _reads(subject: Subject, judge: Judge, arm: str, right: np.ndarray) -> Gate:
  found = _estimate(subject, right)
  low = found.ci95[0] if found.ci95 else found.value
  detail = f"{found.value:.2f} right, at least {low:.2f}; chance is {1 / OPTIONS:.2f}"
  return Gate(f"{judge.name} reads the teacher's text, {arm}", low > 1 / OPTIONS, detail)


def _choice(subject: Subject, row: str, arm: str, reader: str, right: np.ndarray) -> Score:
  found = _estimate(subject, right)
  return Score(row, f"choice, {arm}, {reader}", found.value, found.ci95, found.n, 1 / OPTIONS)


def _estimate(subject: Subject, values: np.ndarray) -> Estimate:
  settings = subject.settings
  fixed = {"samples": settings.bootstrap_samples, "seed": settings.seed}
  return bootstrap_mean(values, subject.groups, **fixed)


def _verdict(arms: dict[str, _Arm]) -> str:
  """The sentence about illegible information."""
  usable = {
    name: arm.illegible
    for name, arm in arms.items()
    if arm.illegible is not None and arm.illegible.ci95
  }
  if not usable:
    return "Whether the words hide information cannot be said: no reader of words reads the teacher's text."

  # The arm that shows most: a code need not show in both.
  name, worst = max(usable.items(), key=lambda item: item[1].ci95[0])
  low, high = worst.ci95
  interval = f"{worst.value:+.2f} [{low:+.2f}, {high:+.2f}]"
  if low > 0:
    return f"The AR knows more than the words say: {interval} of the {name} choices are illegible."
  return f"The AR knows no more than a reader of the words ({name} choices {interval})."
