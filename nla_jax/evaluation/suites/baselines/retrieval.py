"""Baseline: the AR reads the teacher's text of the nearest training activation."""

import numpy as np

from nla_jax.autoencoder.fve import normalise
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

_CHUNK = 256  # rows compared at once, so that memory stays at _CHUNK x training rows


def run(subject: Subject) -> Measured:
  """Scores looking up; empty where no training activation has a text."""
  if subject.texts is None:
    return Measured({})
  explained = np.array([int(row) in subject.texts for row in subject.training_rows], bool)
  if not explained.any():
    return Measured({})

  # Only among activations that have a text: the nearest of all might have none.
  nearest = nearest_rows(subject.activations, subject.training_activations[explained])
  rows = subject.training_rows[explained][nearest]
  return Measured({"retrieval": subject.score([subject.texts[int(row)] for row in rows])})


def nearest_rows(vectors: np.ndarray, training: np.ndarray) -> np.ndarray:
  """Finds for each vector [n, d] the index of the training vector [m, d] with the highest cosine: [n] int."""
  units = normalise(training)
  chunks = [vectors[i : i + _CHUNK] for i in range(0, len(vectors), _CHUNK)]
  return np.concatenate([np.argmax(normalise(chunk) @ units.T, axis=1) for chunk in chunks])


SUITE = Suite(run)
