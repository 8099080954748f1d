"""What a judge is: it reads a text and scores options, labels or a rubric. Nothing else is asked of one."""

import abc
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Frame(NamedTuple):
  """How a question is put to a judge that reads language.

  Attributes:
    before: what stands before an option, with {text} where the explanation goes.
    option: an option behind it, with {option}.
  """

  before: str
  option: str = " {option}"


CONTINUATION = Frame("Notes on a passage: {text}\n\nThe passage continues:\n")
LABEL = Frame("Notes on a passage: {text}\n\nIn one word, the passage is about:")


class Question(NamedTuple):
  """A text and what it may speak of.

  Attributes:
    text: an explanation; None or "" where there is none.
    options: at least two.
  """

  text: str | None
  options: tuple[str, ...]


class Grade(NamedTuple):
  """What a judge says of a rubric.

  Attributes:
    verdict: "yes", "no", or "unclear".
    evidence: a quotation of what was graded, which holds it; empty where the judge gives none.
    reasoning: in the judge's words; empty where it has none.
  """

  verdict: str
  evidence: str = ""
  reasoning: str = ""


class Judge(abc.ABC):
  """Reads texts and scores options.

  Attributes:
    name: as tables show it.
  """

  name: str

  @abc.abstractmethod
  def scores(self, questions: Sequence[Question], frame: Frame = CONTINUATION) -> list[np.ndarray]:
    """The score of each option of each question, higher for what the text speaks of more.

    Equal scores say that the judge does not know. NaN is an answer that was none, which counts as wrong.
    """

  def choose(
    self, text: str | None, options: Sequence[str], frame: Frame = CONTINUATION
  ) -> int | None:
    """The index of the option that a text speaks of; None where the judge does not know."""
    (found,) = self.scores([Question(text, tuple(options))], frame)
    best = np.flatnonzero(found == np.max(found))
    return int(best[0]) if len(best) == 1 else None

  def label(self, text: str | None, classes: Sequence[str], frame: Frame = LABEL) -> str | None:
    """The class that a text speaks of; None where the judge does not know."""
    chosen = self.choose(text, classes, frame)
    return None if chosen is None else classes[chosen]

  def grade(self, rubric: str, fields: Mapping[str, str]) -> Grade:
    """Whether what a rubric asks is so of named texts."""
    # Braces of a text are no fields of the frame.
    asked = rubric.replace("{", "{{").replace("}", "}}")
    frame = Frame("{text}\n\nQuestion: " + asked + " Yes or no?\nAnswer:")
    said = "\n\n".join(f"{name}: {text}" for name, text in fields.items())
    return Grade(self.label(said, ("yes", "no"), frame) or "unclear")


def hit(scores: np.ndarray, right: int) -> float:
  """The chance that a judge's choice is the right one: 1 or 0, a share where options tie, 0 where it gave none."""
  if np.isnan(scores).any():
    return 0.0

  # A judge that does not know is worth chance, not nothing: else silence would look like an answer.
  best = scores == scores.max()
  return float(best[right] / best.sum())


def hits(scores: Sequence[np.ndarray], rights: Sequence[int]) -> np.ndarray:
  """[n] of `hit`."""
  return np.array([hit(one, right) for one, right in zip(scores, rights, strict=True)])
