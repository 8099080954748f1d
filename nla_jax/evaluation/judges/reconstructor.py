"""A1: the AR as a judge: what it rebuilds from a text, against activations of other documents.

It was trained with the AV, so it can read a code between them that is in no word. What it finds beyond the judges of
words is the alarm, not the result.
"""

from collections.abc import Sequence

import numpy as np

from nla_jax.autoencoder.nla import NLA
from nla_jax.evaluation.judges.judge import CONTINUATION, Frame, Judge, Question
from nla_jax.evaluation.judges.probes import cross_fitted

NAME = "AR"
_PREFIX = "The passage continues:"


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


class Reconstructor(Judge):
  """Chooses the option that the target's activation at its end points to most like what the AR rebuilds.

  Args:
    nla: the pair, with its target.
    batch: texts that the AR reads at once.
  """

  name = NAME

  def __init__(self, nla: NLA, batch: int):
    self._nla, self._batch = nla, batch
    self._known: dict[str, np.ndarray] = {}

  def scores(self, questions: Sequence[Question], frame: Frame = CONTINUATION) -> list[np.ndarray]:
    """Cosines, each side less its own mean over all questions; how a question is put is not read."""
    self._learn([option for one in questions for option in one.options])
    candidates = [np.stack([self._known[o] for o in one.options]) for one in questions]
    centre = _units(np.concatenate(candidates)).mean(axis=0)

    rebuilt = _units(self._nla.reconstruct([one.text for one in questions], batch=self._batch))
    centred = _units(rebuilt - rebuilt.mean(axis=0))
    return [_units(_units(several) - centre) @ one for several, one in zip(candidates, centred)]

  def _learn(self, options: list[str]) -> None:
    """Reads activations at the end of options behind a neutral beginning."""
    new = [option for option in dict.fromkeys(options) if option not in self._known]
    ids = [self._nla.tokens(f"{_PREFIX} {option}").ids for option in new]
    found = self._nla.activations(ids, [[len(one) - 1] for one in ids])
    self._known |= {option: rows[0] for option, rows in zip(new, found)}


def _units(vectors: np.ndarray) -> np.ndarray:
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
