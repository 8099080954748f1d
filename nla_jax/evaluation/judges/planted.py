"""The gate of every judge: half of the texts get a signal that decides, and the judge must find it.

A judge that cannot read "the passage continues: …" with the very words behind it cannot read an explanation, and what
it says of one means nothing. A judge that finds the signal where there is none is as bad: it knows the answer by
another way. The texts that carry the signal are explanations of other rows, so nothing in them helps.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.evaluation.findings import Gate
from nla_jax.evaluation.judges.judge import CONTINUATION, Frame, Judge, Question, hits

ITEMS = 40  # of a test, half of them with a signal
_FEWEST = 4  # with a signal: fewer decide nothing
_SHARE = 0.5  # of the way from chance to all that must be found


class Planted(NamedTuple):
  """What a judge made of planted signals.

  Attributes:
    found: share of the right answers where a signal was planted.
    without: the same where none was.
    chance: of a judge that reads nothing.
    n: items with a signal.
  """

  found: float
  without: float
  chance: float
  n: int

  @property
  def passed(self) -> bool:
    """Whether half of the way to all was found with the signal, and chance alone without it."""
    spread = 3 * np.sqrt(self.chance * (1 - self.chance) / max(self.n, 1))
    asked = self.chance + _SHARE * (1 - self.chance)
    if self.n < _FEWEST:
      return False
    return self.found >= asked and self.without <= self.chance + spread

  def gate(self, judge: str) -> Gate:
    """The gate of a judge, with the numbers."""
    asked = self.chance + _SHARE * (1 - self.chance)
    detail = (
      f"{self.found:.2f} found of {self.n} with a decisive word, at least {asked:.2f} is asked; "
      f"{self.without:.2f} without one, chance {self.chance:.2f}"
    )
    return Gate(f"planted signal, {judge}", bool(self.passed), detail)


def planted_choices(
  judge: Judge,
  carriers: Sequence[str | None],
  options: Sequence[Sequence[str]],
  seed: int,
  frame: Frame = CONTINUATION,
  signal: Callable[[str], str] = str,
) -> Planted:
  """Tests a judge of options.

  Args:
    judge: a judge.
    carriers: texts that say nothing of the options.
    options: of each carrier.
    seed: of the choice of what is planted, and where.
    frame: how the question is put.
    signal: from the option that is planted to the words that are appended.
  """
  n = min(len(carriers), ITEMS)
  generator = np.random.default_rng(seed)
  rights = [int(generator.integers(len(several))) for several in options[:n]]
  with_signal = planted_half(n, generator)

  # What is planted is drawn, so that no option is likelier beforehand.
  questions = []
  for i in range(n):
    text = carriers[i] or ""
    text = f"{text} {signal(options[i][rights[i]])}".strip() if with_signal[i] else text
    questions.append(Question(text, tuple(options[i])))

  found = hits(judge.scores(questions, frame), rights)
  chance = float(np.mean([1 / len(several) for several in options[:n]]))
  return _planted(found, with_signal, chance)


def planted_labels(
  scores: Callable[[list[str], np.ndarray, np.ndarray], np.ndarray],
  carriers: Sequence[str | None],
  words: Sequence[str],
  seed: int,
) -> Planted:
  """Tests a judge that is trained.

  Args:
    scores: from texts [n], labels [n] and groups [n] to scores [n, classes] of groups that it has not seen.
    carriers: texts that say nothing of the classes.
    words: of each class, the word that decides.
    seed: of the labels, and of where they are planted.
  """
  n = 2 * min(len(carriers), ITEMS)
  generator = np.random.default_rng(seed)
  labels = generator.permutation(np.arange(n) % len(words))
  with_signal = planted_half(n, generator)
  texts = [
    f"{carriers[i % len(carriers)] or ''} {words[labels[i]]}".strip()
    if with_signal[i]
    else carriers[i % len(carriers)] or ""
    for i in range(n)
  ]
  # A carrier that is used twice is one document.
  found = hits(list(scores(texts, labels, np.arange(n) % len(carriers))), labels)
  return _planted(found, with_signal, 1 / len(words))


def planted_vectors(
  scores: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
  vectors: np.ndarray,
  classes: int,
  seed: int,
) -> Planted:
  """Tests a probe of vectors: half of them get a direction of their class, two spreads long."""
  vectors = np.asarray(vectors, np.float64)
  generator = np.random.default_rng(seed)
  labels = generator.permutation(np.arange(len(vectors)) % classes)
  with_signal = planted_half(len(vectors), generator)

  directions = generator.normal(size=(classes, vectors.shape[1]))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)

  length = 2 * np.sqrt(vectors.var(axis=0).sum())
  added = vectors + length * directions[labels] * with_signal[:, None]
  found = hits(list(scores(added, labels, np.arange(len(vectors)))), labels)
  return _planted(found, with_signal, 1 / classes)


def planted_half(n: int, generator: np.random.Generator) -> np.ndarray:
  """[n] which half of the items get a signal."""
  return generator.permutation(n) < (n + 1) // 2


def _planted(found: np.ndarray, with_signal: np.ndarray, chance: float) -> Planted:
  without = float(found[~with_signal].mean()) if (~with_signal).any() else chance
  return Planted(float(found[with_signal].mean()), without, chance, int(with_signal.sum()))
