"""Control: a vector of zeros is injected."""

import numpy as np

from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

_DRAW = 2  # the number of its draw, see `Subject.explain`


def run(subject: Subject) -> Measured:
  """Scores what the AV says when it is given nothing."""
  texts = subject.explain_constant(np.zeros(subject.activations.shape[1]), _DRAW)
  return Measured({"zero_vector": subject.score(texts)})


def explanations(subject: Subject) -> int:
  """Counts the explanations of the one vector."""
  return subject.n_constant


SUITE = Suite(run, explanations)
