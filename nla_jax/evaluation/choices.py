"""Which of several activations is an explanation about: the same question to a reader of words and to the AR.

The reader of words sees what each document says behind the position, the AR sees the activations. Both choose with
chance 1 in K, so what the AR knows beyond the words can be measured: information that no reader can read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.text import decode
from nla_jax.evaluation.judges.judge import Judge, Question, hits
from nla_jax.evaluation.subject import Subject

OPTIONS = 4
_AFTER = 12  # tokens of the document that the reader of words sees of each option


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


def right_by_words(judge: Judge, texts: Sequence[str | None], choices: Choices) -> np.ndarray:
  """[n] whether a reader of words chooses each row's own option, 1 or 0; of a tie its share.

  Without an explanation nothing is read, and 1/K of the choices are right. Rows that are not asked count so too.
  """
  rows = np.flatnonzero(choices.asked)
  asked = [Question(texts[i] or None, tuple(choices.words[i])) for i in rows]
  right = np.full(len(texts), 1 / choices.rows.shape[1])
  right[rows] = hits(judge.scores(asked), choices.answer[rows].tolist())
  return right


def right_by_ar(
  nla: NLA, texts: Sequence[str | None], choices: Choices, activations: np.ndarray, batch: int = 64
) -> np.ndarray:
  """[n] the same by the cosine of what an AR rebuilds with the options' own activations, of [n, d].

  Each side is less its own mean: what the AR gives lies elsewhere than what it was trained on.
  """
  rebuilt, units = (
    fve.normalise(np.asarray(one, np.float64))
    for one in (nla.reconstruct(list(texts), batch=batch), activations)
  )
  rebuilt, units = (fve.normalise(one - one.mean(axis=0)) for one in (rebuilt, units))
  scores = list(np.einsum("nd,nkd->nk", rebuilt, units[choices.rows]))

  # What an AR assumes of an empty text would be an answer, where a reader of words has none.
  scores = [one if text else np.zeros_like(one) for one, text in zip(scores, texts)]
  right = hits(scores, choices.answer.tolist())
  return np.where(choices.asked, right, 1 / choices.rows.shape[1])


def first_choices(choices: Choices, n: int) -> Choices:
  """The questions of the first n rows; their options may be any rows."""
  return Choices(choices.rows[:n], choices.answer[:n], choices.words[:n], choices.asked[:n])
