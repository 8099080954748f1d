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
  rebuilt = np.asarray(rebuilt)

  def fit(fitted: np.ndarray):
    known, own = activations[fitted], _units(rebuilt[fitted]).mean(axis=0)
    return lambda held: nearest_class(rebuilt[held], known, labels[fitted], classes, own)

  return cross_fitted(fit, groups, classes, seed)


def nearest_class(
  rebuilt: np.ndarray,
  activations: np.ndarray,
  labels: np.ndarray,
  classes: int,
  own: np.ndarray | None = None,
) -> np.ndarray:
  """[n, classes] cosines of what was rebuilt [n, d] with the mean direction of each class.

  Args:
    rebuilt: by the AR.
    activations: [m, d] of other items.
    labels: [m] their classes.
    classes: how many there are; one without an item has cosine 0.
    own: [d] the mean direction of what is rebuilt, taken out; that of `rebuilt` where None.
  """
  rebuilt, activations = _units(rebuilt), _units(activations)
  # Each side by its own mean: what the AR gives lies elsewhere than what it was trained on.
  own = rebuilt.mean(axis=0) if own is None else own
  centre = activations.mean(axis=0)
  means = np.zeros((classes, activations.shape[1]))
  for one in np.unique(labels):
    means[one] = activations[labels == one].mean(axis=0) - centre
  return _units(rebuilt - own) @ _units(means).T


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

    # Means over all questions: a single text has none of its own.
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
