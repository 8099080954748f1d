"""The size of an activation, read from its explanation: the norm travels with the direction.

The AV is given a direction alone and the AR is trained on directions alone, so a reconstruction has no size of its own.
A second head gives it one: log ‖h‖ = u·w + b, where u is the reconstruction at norm 1. Since the AR's first head is a
square matrix, that is a linear map of its state at the last token. It is fitted in closed form to explanations of
training activations when all training is done, and changes nothing else.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from nla_jax.errors import NLAError

LEAST_ROWS = 32  # fewer decide nothing
_FOLDS = 5
_PENALTIES = np.logspace(-4, 4, 17)  # in units of the features' mean variance


@dataclasses.dataclass(frozen=True)
class Magnitude:
  """The head that gives a reconstruction its size.

  Attributes:
    weight: [d_model] float32.
    bias: added to it; the log of a norm.
  """

  weight: np.ndarray
  bias: float

  def to_json(self) -> dict[str, Any]:
    """The head as JSON values; `from_json` reads them."""
    return {"weight": self.weight.astype(np.float64).tolist(), "bias": self.bias}

  def norms(self, rebuilt: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, " n"]:
    """The norm of the activation that each reconstruction stands for."""
    return np.exp(_units(rebuilt) @ self.weight.astype(np.float64) + self.bias)

  def full_size(self, rebuilt: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n d_model"]:
    """Reconstructions at the size of the activations that they stand for, float32."""
    return (_units(rebuilt) * self.norms(rebuilt)[:, None]).astype(np.float32)


def from_json(found: dict[str, Any] | None) -> Magnitude | None:
  """What `Magnitude.to_json` gave; None of nothing."""
  if found is None:
    return None
  return Magnitude(np.array(found["weight"], np.float32), float(np.float32(found["bias"])))


def needed(magnitude: Magnitude | None) -> Magnitude:
  """The head of a pair. Raises NLAError where the pair has none."""
  if magnitude is None:
    raise NLAError(
      "this pair does not say how large an activation is, only its direction: evaluate its run with "
      "--config.evaluation.magnitude_rows=512 and load that run, or export it"
    )
  return magnitude


def fit(
  rebuilt: Float[np.ndarray, "n d_model"],
  norms: Float[np.ndarray, " n"],
  groups: np.ndarray,
  seed: int = 0,
) -> Magnitude:
  """Fits the head by ridge regression; the penalty is the one that predicts left-out groups best.

  Args:
    rebuilt: what the AR makes of explanations of n training activations.
    norms: of these activations.
    groups: [n] of their documents: rows of one are never on both sides of a fold.
    seed: of the folds.

  Raises:
    NLAError: there are fewer than `LEAST_ROWS` rows or two groups, or an activation is zero.
  """
  names, of_rows = np.unique(groups, return_inverse=True)
  if len(norms) < LEAST_ROWS or len(names) < 2 or (norms <= 0).any():
    raise NLAError(
      f"{len(norms)} explanations of {len(names)} document groups cannot say how large activations are; at least "
      f"{LEAST_ROWS} of 2 groups, none of them zero: raise --config.evaluation.magnitude_rows"
    )

  # 1. The penalty, by groups that were left out.
  x, y = _units(rebuilt), np.log(norms.astype(np.float64))
  fold = np.random.default_rng(seed).permutation(len(names))[of_rows.reshape(-1)] % _FOLDS
  errors = np.zeros(len(_PENALTIES))
  for i in np.unique(fold):
    weights, biases = _ridge(x[fold != i], y[fold != i])
    errors += ((x[fold == i] @ weights.T + biases - y[fold == i, None]) ** 2).sum(axis=0)

  # 2. The head, from all rows.
  best = int(errors.argmin())
  weights, biases = _ridge(x, y)
  # As the file keeps it: a pair that was exported predicts the same.
  return Magnitude(weights[best].astype(np.float32), float(np.float32(biases[best])))


def _ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The weights [penalties, d] and biases [penalties] for every penalty."""
  centre, level = x.mean(axis=0), y.mean()
  left, sizes, right = np.linalg.svd(x - centre, full_matrices=False)
  # Relative to the features' own variance, so that no width or model needs penalties of its own.
  scale = max(float((sizes**2).mean()), np.finfo(np.float64).tiny)
  shrunk = sizes / (sizes**2 + _PENALTIES[:, None] * scale)  # [penalties, k]
  weights = (shrunk * (left.T @ (y - level))) @ right
  return weights, level - weights @ centre


def _units(vectors: np.ndarray) -> np.ndarray:
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
