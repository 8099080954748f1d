"""What benign transcripts look like: a fit of their activations, and what they score when they are watched themselves.

Activations are projected onto at most 256 fixed random directions, where mean and covariance are summed one transcript
at a time: memory does not grow with the transcripts. A token's novelty is the Mahalanobis distance there, by which a
direction of much ordinary variance counts little.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from nla_jax.errors import NLAError

DIRECTIONS = 256
_SHRINK = (
  0.05  # of the mean variance, added to each direction: few tokens leave some of them without any
)


class Sums(NamedTuple):
  """What is known of the benign activations so far.

  Attributes:
    projection: [d_model, m] fixed directions.
    n: tokens.
    total: [m] sum of the projected activations.
    squares: [m, m] sum of their outer products.
  """

  projection: np.ndarray
  n: int
  total: np.ndarray
  squares: np.ndarray


class Reference(NamedTuple):
  """How ordinary activations are distributed.

  Attributes:
    projection: [d_model, m] fixed directions.
    mean: [m] of projected activations.
    whiten: [m, m] by which their differences from the mean are multiplied.
    tokens: that it was fitted on.
  """

  projection: np.ndarray
  mean: np.ndarray
  whiten: np.ndarray
  tokens: int

  def novelty(self, activations: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """How far activations lie from ordinary ones: 1 on average of ordinary ones."""
    away = _projected(activations, self.projection) - self.mean
    return np.sqrt(np.mean((away @ self.whiten) ** 2, axis=1))

  def save(self, path: Path) -> None:
    """Writes it as one .npz file."""
    np.savez(path, **self._asdict())


def nothing(d_model: int, seed: int = 0) -> Sums:
  """The sums of no activations."""
  m = min(DIRECTIONS, d_model)
  drawn = np.random.default_rng(seed).normal(size=(d_model, m))
  # Orthogonal: of a model no wider than that nothing is lost.
  projection = np.linalg.qr(drawn)[0]
  return Sums(projection, 0, np.zeros(m), np.zeros((m, m)))


def add(sums: Sums, activations: Float[np.ndarray, "n d"]) -> Sums:
  """The sums with the activations of one more transcript."""
  rows = _projected(activations, sums.projection)
  return Sums(
    sums.projection,
    sums.n + len(rows),
    sums.total + rows.sum(axis=0),
    sums.squares + rows.T @ rows,
  )


def fit(sums: Sums) -> Reference:
  """The distribution behind sums.

  Raises:
    NLAError: there are fewer than two tokens.
  """
  if sums.n < 2:
    raise NLAError(
      f"the reference has {sums.n} tokens to explain: give a folder of benign transcripts with answers in them"
    )
  mean = sums.total / sums.n
  covariance = sums.squares / sums.n - np.outer(mean, mean)
  covariance += _SHRINK * np.trace(covariance) / len(mean) * np.eye(len(mean))
  values, vectors = np.linalg.eigh(covariance)
  whiten = vectors / np.sqrt(np.maximum(values, np.finfo(float).tiny))
  return Reference(sums.projection, mean, whiten, sums.n)


def load(path: Path) -> Reference:
  """Reads what `Reference.save` wrote. Raises NLAError where it is none."""
  try:
    with np.load(path) as held:
      found = {name: held[name] for name in Reference._fields}
  except (OSError, ValueError, KeyError) as error:
    raise NLAError(f"{path} is no reference ({error}): delete it, and it is fitted anew") from error
  return Reference(**{**found, "tokens": int(found["tokens"])})


def p_value(score: float, ordinary: Sequence[float]) -> float:
  """The share of benign transcripts that score as much, itself among them, so that it is never 0."""
  return (1 + sum(one >= score for one in ordinary)) / (1 + len(ordinary))


def fewest(false_alarms: float) -> int:
  """Benign transcripts without which no alert at that rate of false alarms is possible."""
  return int(np.ceil(1 / false_alarms - 1e-9)) - 1


def _projected(activations, projection: np.ndarray) -> np.ndarray:
  # Directions alone: a first token's norm is a hundred times that of the others.
  rows = np.asarray(activations, np.float64)
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norms > 0, norms, 1) @ projection
