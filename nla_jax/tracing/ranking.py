"""The best rows of a corpus by a score, a part of the corpus at a time: memory does not grow with it."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.errors import NLAError

_WORD = re.compile(r"\w+")
# Robertson et al. 1994, Okapi at TREC-3: how soon a repeated word counts no more, and how much length is made up for.
_SATURATION, _LENGTH = 1.2, 0.75
_FUSION = 60  # Cormack et al. 2009, reciprocal rank fusion


class Hit(NamedTuple):
  """A row of the corpus.

  Attributes:
    row: its number.
    score: by the method that found it; only scores of one method compare.
  """

  row: int
  score: float


class TopK:
  """The k best of all rows that were shown, best first; of equal scores the earlier row.

  Args:
    k: how many are kept.
  """

  def __init__(self, k: int):
    if k < 1:
      raise NLAError(f"k={k}: at least one example has to be looked for")
    self._k = k
    self._rows, self._scores = np.zeros(0, np.int64), np.zeros(0, np.float64)

  def push(self, first: int, scores: np.ndarray) -> None:
    """Shows the scores of the rows `first`, `first` + 1, …"""
    rows = np.concatenate([self._rows, np.arange(first, first + len(scores))])
    every = np.concatenate([self._scores, np.asarray(scores, np.float64)])
    # Equal scores keep the earlier row, so that the parts' size decides nothing.
    best = np.lexsort((rows, -every))[: self._k]
    self._rows, self._scores = rows[best], every[best]

  @property
  def hits(self) -> list[Hit]:
    """What was kept."""
    return [Hit(int(row), float(score)) for row, score in zip(self._rows, self._scores)]


def words(text: str) -> list[str]:
  """The words of a text, in one case."""
  return _WORD.findall(text.casefold())


def by_words(
  parts: Callable[[], Iterable[tuple[int, Sequence[str]]]], query: str, k: int
) -> list[Hit]:
  """The best texts by BM25.

  Args:
    parts: gives, each time it is called, the number of a part's first text, and the texts, for the whole corpus.
    query: of which every word counts.
    k: how many.
  """
  # 1. In how many texts each word of the query is, and how long texts are.
  wanted, found, texts, length = Counter(words(query)), Counter(), 0, 0
  for _, part in parts():
    for text in part:
      of_text = words(text)
      found.update(wanted.keys() & set(of_text))
      texts, length = texts + 1, length + len(of_text)
  rarity = {
    word: math.log(1 + (texts - found[word] + 0.5) / (found[word] + 0.5)) for word in wanted
  }

  # 2. The scores: in a second pass, since the first one's sums are needed for each.
  best, mean = TopK(k), max(length / max(texts, 1), 1e-9)
  for first, part in parts():
    best.push(first, np.array([_bm25(words(text), wanted, rarity, mean) for text in part]))
  return [hit for hit in best.hits if hit.score > 0]


def _bm25(of_text: list[str], wanted: Counter, rarity: dict[str, float], mean: float) -> float:
  counts = Counter(word for word in of_text if word in wanted)
  damping = _SATURATION * (1 - _LENGTH + _LENGTH * len(of_text) / mean)
  return sum(
    wanted[word] * rarity[word] * n * (_SATURATION + 1) / (n + damping)
    for word, n in counts.items()
  )


def by_vectors(parts: Iterator[tuple[int, np.ndarray]], queries: np.ndarray, k: int) -> list[Hit]:
  """The best rows by the largest cosine with any of several vectors.

  Args:
    parts: the number of a part's first row, and the vectors [rows, d].
    queries: [n, d].
    k: how many.
  """
  best, queries = TopK(k), unit(queries)
  for first, vectors in parts:
    best.push(first, (unit(vectors) @ queries.T).max(axis=1))
  return best.hits


def unit(vectors: np.ndarray) -> np.ndarray:
  """Vectors [n, d] at unit norm, float64; zero stays zero."""
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def fused(lists: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
  """One list out of several, by the sum of each row's reciprocal ranks."""
  scores: dict[int, float] = {}
  for hits in lists:
    for rank, hit in enumerate(hits, 1):
      scores[hit.row] = scores.get(hit.row, 0.0) + 1 / (_FUSION + rank)

  order = sorted(scores, key=lambda row: (-scores[row], row))
  return [Hit(row, scores[row]) for row in order[:k]]


def precision(hits: Sequence[Hit], planted: set[int], k: int) -> float:
  """The share of the first k places that hold a planted row; a place without a row counts as wrong."""
  return sum(hit.row in planted for hit in hits[:k]) / k
