"""A1: the AR as a judge: what it rebuilds from a text, against activations of other documents.

It was trained with the AV, so it can read a code between them that is in no word. What it finds beyond the judges of
words is the alarm, not the result.
"""

from collections.abc import Sequence

import numpy as np

from nla_jax.evaluation.judges.probes import cross_fitted

NAME = "AR"


def prototypes(
  rebuilt: np.ndarray,
  activations: np.ndarray,
  labels: np.ndarray,
  groups: np.ndarray,
  classes: int,
  seed: int = 0,
) -> np.ndarray:
  """[n, classes] cosines of what was rebuilt with the mean activation of each class, of other groups.

  Args:
    rebuilt: [n, d] by the AR, of each item's text.
    activations: [n, d] of the items.
    labels: [n] classes of the items.
    groups: [n]; means are of groups other than the item's own.
    classes: how many there are.
    seed: of the folds.
  """
  rebuilt, activations = _units(rebuilt), _units(activations)

  def fit(fitted: np.ndarray):
    # Each side by its own mean: what the AR gives is shorter and lies elsewhere than what it was trained on.
    centre = activations[fitted].mean(axis=0)
    means = [
      activations[fitted][labels[fitted] == one].mean(axis=0) - centre
      if (labels[fitted] == one).any()
      else np.zeros_like(centre)
      for one in range(classes)
    ]
    own = rebuilt[fitted].mean(axis=0)
    return lambda held: _units(rebuilt[held] - own) @ _units(np.stack(means)).T

  return cross_fitted(fit, groups, classes, seed)


def choices(
  rebuilt: np.ndarray, candidates: Sequence[np.ndarray], centre: np.ndarray
) -> list[np.ndarray]:
  """Cosines of what was rebuilt [n, d] with activations [options, d] of each item's options, by item.

  Args:
    rebuilt: [n, d] by the AR, of each item's text.
    candidates: of each item, the target's activations at the end of its options.
    centre: [d] the mean direction of all candidates.
  """
  centred = _units(_units(rebuilt) - _units(rebuilt).mean(axis=0))
  return [_units(_units(several) - centre) @ one for several, one in zip(candidates, centred)]


def mean_direction(vectors: np.ndarray) -> np.ndarray:
  """[d] the mean of vectors [n, d] at unit length."""
  return _units(vectors).mean(axis=0)


def _units(vectors: np.ndarray) -> np.ndarray:
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
