"""Which of several activations is an explanation about: the same question to a reader of words and to the AR.

The reader of words sees what each document says behind the position, the AR sees the activations. Both choose with
chance 1 in K, so what the AR knows beyond the words can be measured: information that no reader can read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.text import decode
from nla_jax.evaluation.subject import Subject

OPTIONS = 4
_AFTER = 12  # tokens of the document that the reader of words sees of each option

# From an explanation and options to a score of each option; the largest is the choice.
Choose = Callable[[str, Sequence[str]], Sequence[float]]


class Choices(NamedTuple):
  """A question for each row.

  Attributes:
    rows: [n, K] the rows that are the options, in random order.
    answer: [n] which of them is the row itself.
    words: [n] what the documents say at the options, of each row K texts.
    asked: [n] whether the row is asked: its document goes on behind the position, and so do others.
  """

  rows: np.ndarray
  answer: np.ndarray
  words: list[list[str]]
  asked: np.ndarray


def draw_choices(subject: Subject, *, hard: bool = False, options: int = OPTIONS) -> Choices:
  """A question for each row.

  Args:
    subject: the rows.
    hard: options of the same document group first, which the topic alone does not tell apart.
    options: K.
  """
  words = [_suffix(subject, i) for i in range(subject.n)]
  usable = np.array([bool(one.strip()) for one in words])
  rows = np.tile(np.arange(subject.n)[:, None], (1, options))
  answer, asked = np.zeros(subject.n, np.int64), np.zeros(subject.n, bool)

  for i in range(subject.n):
    random = np.random.default_rng((subject.seed, i))
    others = _others(subject, i, words, usable, hard, random)[: options - 1]
    asked[i] = usable[i] and len(others) == options - 1
    if asked[i]:
      # The row's own place is drawn, so that a judge of habits is at chance.
      rows[i] = random.permutation([i, *others])
      answer[i] = int(np.flatnonzero(rows[i] == i)[0])
  return Choices(rows, answer, [[words[j] for j in row] for row in rows], asked)


def _suffix(subject: Subject, i: int) -> str:
  at = int(subject.positions[i]) + 1
  return decode(subject.nla.pair.tokenizer, subject.documents[i].tokens[at : at + _AFTER])


def _others(
  subject: Subject,
  i: int,
  words: Sequence[str],
  usable: np.ndarray,
  hard: bool,
  random: np.random.Generator,
) -> list[int]:
  """Rows of other words, in random order; of a hard question those of the same group first."""
  same = subject.groups == subject.groups[i]
  order = random.permutation(subject.n)
  if hard:
    order = order[np.argsort(~same[order], kind="stable")]
  found, seen = [], {words[i]}
  for j in order.tolist():
    allowed = usable[j] and words[j] not in seen and (hard or not same[j])
    if allowed:
      found.append(j)
      seen.add(words[j])
  return found


def right_by_words(choose: Choose, texts: Sequence[str | None], choices: Choices) -> np.ndarray:
  """[n] whether a reader of words chooses each row's own option, 1 or 0; of a tie its share.

  A row without an explanation is a guess, 1/K: nothing was read. Rows that are not asked are guesses too.
  """
  right = np.full(len(texts), 1 / choices.rows.shape[1])
  for i, text in enumerate(texts):
    if text and choices.asked[i]:
      right[i] = _share(np.asarray(choose(text, choices.words[i]), np.float64), choices.answer[i])
  return right


def right_by_ar(
  nla: NLA, texts: Sequence[str | None], choices: Choices, activations: np.ndarray, batch: int = 64
) -> np.ndarray:
  """[n] the same by the cosine of what an AR rebuilds with the options' activations, both less the mean direction."""
  rebuilt = fve.normalise(np.asarray(nla.reconstruct(list(texts), batch=batch), np.float64))
  units = fve.normalise(np.asarray(activations, np.float64))
  mean = units.mean(axis=0)
  scores = np.einsum(
    "nd,nkd->nk", fve.normalise(rebuilt - mean), fve.normalise(units - mean)[choices.rows]
  )

  right = np.full(len(texts), 1 / choices.rows.shape[1])
  for i in np.flatnonzero(choices.asked):
    if texts[i]:
      right[i] = _share(scores[i], choices.answer[i])
  return right


def _share(scores: np.ndarray, answer: int) -> float:
  best = scores == scores.max()
  return float(best[answer] / best.sum())
