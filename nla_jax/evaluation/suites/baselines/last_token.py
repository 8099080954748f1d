"""Baseline: the mean direction of training activations on the same token; no text is read."""

import numpy as np

from nla_jax.autoencoder.fve import normalise
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite


def run(subject: Subject) -> Measured:
  """Scores the answer by last token; empty where there is no training activation."""
  if not len(subject.training_rows):
    return Measured({})
  predicted = mean_per_last_token(
    subject.training_activations, subject.training_last_tokens, subject.last_tokens
  )
  return Measured({"mean_per_last_token": subject.errors(predicted)})


def mean_per_last_token(
  training: np.ndarray, training_tokens: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
  """Averages directions by token.

  Args:
    training: [m, d] training vectors.
    training_tokens: [m] the last token of each.
    tokens: [n] last tokens to answer.

  Returns:
    [n, d] float32, the mean direction of the training vectors on each token; of all of them for a token that
    training does not have.
  """
  units = normalise(training)
  known, member = np.unique(training_tokens, return_inverse=True)
  sums = np.zeros((len(known), training.shape[1]))
  np.add.at(sums, member, units)
  means = sums / np.bincount(member)[:, None]

  # `searchsorted` gives a place to unknown tokens too; what stands there is another token.
  place = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
  is_known = (known[place] == tokens)[:, None]
  return np.where(is_known, means[place], units.mean(axis=0)).astype(np.float32)


SUITE = Suite(run)
