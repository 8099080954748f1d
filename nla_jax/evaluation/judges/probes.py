"""Judges that are trained: logistic regression on vectors or on words, scored on documents that it has not seen.

H1 reads the activation and is the ceiling. W3 reads the explanation as TF-IDF: it may learn a code of words, since it
is trained on the very texts. Both give the scores of grouped folds, never those of a document that they were fitted to.
"""

import collections
import itertools
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

FOLDS = 5
_STEPS, _FLAT = 300, 1e-5  # of accelerated descent, at most; and the largest slope at which it ends
_COST = 3.0  # how much an item counts against the penalty; between 1 and 100 it matters little
_MOST_WORDS = 4000  # of the vocabulary
_WORD = re.compile(r"\w+(?:['’]\w+)?")


def fold_of_groups(groups: np.ndarray, seed: int, folds: int = FOLDS) -> np.ndarray:
  """[n] the fold of each item: whole groups, drawn with a seed and dealt out by size."""
  names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
  order = np.random.default_rng(seed).permutation(len(names))
  order = order[np.argsort(-sizes[order], kind="stable")]

  # The largest first, each into the emptiest fold.
  filled, fold = np.zeros(min(folds, len(names))), np.zeros(len(names), int)
  for group in order:
    fold[group] = int(filled.argmin())
    filled[fold[group]] += sizes[group]
  return fold[member]


def cross_fitted(
  fit: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
  groups: np.ndarray,
  classes: int,
  seed: int,
) -> np.ndarray:
  """[n, classes] scores of each item by a judge that was fitted without its group.

  Args:
    fit: from the indices of items that are fitted to what scores other indices.
    groups: [n].
    classes: how many there are.
    seed: of the folds.
  """
  fold = fold_of_groups(np.asarray(groups), seed)
  found = np.zeros((len(fold), classes))
  for number in range(fold.max() + 1):
    held = np.flatnonzero(fold == number)
    fitted = np.flatnonzero(fold != number)
    # Of one group there is nothing to learn from: the judge does not know.
    if len(fitted):
      found[held] = fit(fitted)(held)
  return found


def logistic(
  features: np.ndarray, labels: np.ndarray, classes: int, cost: float
) -> tuple[np.ndarray, np.ndarray]:
  """Multinomial logistic regression with a quadratic penalty: weights [d, classes] and biases [classes].

  The objective is the mean loss plus |weights|² / (2 · cost · n), by Nesterov's method with a step of 1 / L.
  """
  n, d = features.shape
  x = np.concatenate([features, np.ones((n, 1))], axis=1)
  penalty = np.full((d + 1, 1), 1 / (cost * n))
  penalty[-1] = 0.0  # a bias costs nothing
  wanted = np.eye(classes)[labels]
  top = np.linalg.norm(x, 2) ** 2 / n
  step = 1 / (0.5 * top + penalty.max())

  weights = ahead = np.zeros((d + 1, classes))
  momentum = 1.0
  for _ in range(_STEPS):
    logits = x @ ahead
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    slope = x.T @ (shares - wanted) / n + penalty * ahead
    if np.abs(slope).max() < _FLAT:
      break
    new = ahead - step * slope
    grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
    ahead = new + (momentum - 1) / grown * (new - weights)
    weights, momentum = new, grown
  return ahead[:-1], ahead[-1]


def linear_probe(
  vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int = 0
) -> np.ndarray:
  """H1: [n, classes] scores of vectors [n, d] by a probe that has not seen their group."""
  vectors = np.asarray(vectors, np.float64)

  def fit(fitted: np.ndarray):
    mean, spread = vectors[fitted].mean(axis=0), vectors[fitted].std(axis=0)
    scaled = (vectors - mean) / np.where(spread > 1e-9, spread, 1.0)
    # At unit length on average, like TF-IDF: the penalty then means the same at every width.
    scaled /= math.sqrt(vectors.shape[1])
    weights, bias = logistic(scaled[fitted], labels[fitted], classes, _COST)
    return lambda held: scaled[held] @ weights + bias

  return cross_fitted(fit, groups, classes, seed)


def text_probe(
  texts: Sequence[str | None],
  labels: np.ndarray,
  groups: np.ndarray,
  classes: int,
  seed: int = 0,
) -> np.ndarray:
  """W3: [n, classes] scores of texts by TF-IDF and a logistic regression that has not seen their group."""
  words = [words_of(text or "") for text in texts]

  def fit(fitted: np.ndarray):
    features = tf_idf(words, fitted)
    weights, bias = logistic(features[fitted], labels[fitted], classes, _COST)
    return lambda held: features[held] @ weights + bias

  return cross_fitted(fit, groups, classes, seed)


def words_of(text: str) -> list[str]:
  """Words and pairs of neighbouring words, in small letters."""
  words = _WORD.findall(text.lower())
  return words + [f"{one} {other}" for one, other in itertools.pairwise(words)]


def tf_idf(words: Sequence[Sequence[str]], fitted: np.ndarray) -> np.ndarray:
  """[n, vocabulary] features at unit length; words and their rarity are those of the `fitted` texts alone."""
  seen = collections.Counter()
  for i in fitted:
    seen.update(set(words[i]))
  vocabulary = {word: j for j, (word, _) in enumerate(seen.most_common(_MOST_WORDS))}
  rarity = {word: math.log((1 + len(fitted)) / (1 + seen[word])) + 1 for word in vocabulary}

  found = np.zeros((len(words), max(len(vocabulary), 1)))
  for i, several in enumerate(words):
    for word, count in collections.Counter(several).items():
      if word in vocabulary:
        found[i, vocabulary[word]] = (1 + math.log(count)) * rarity[word]
  return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
