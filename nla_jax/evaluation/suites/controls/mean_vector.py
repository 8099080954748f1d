"""Control: the mean direction of training activations is injected."""

from nla_jax.autoencoder import fve
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

_DRAW = 3  # the number of its draw, see `Subject.explain`


def run(subject: Subject) -> Measured:
  """Scores what the AV says of no activation in particular; empty where there is no training activation."""
  if not len(subject.training_rows):
    return Measured({})

  # The mean of directions, as in the baseline: norms differ by orders of magnitude between tokens.
  mean = fve.normalise(subject.training_activations).mean(axis=0)
  return Measured({"mean_vector": subject.score(subject.explain_constant(mean, _DRAW))})


def explanations(subject: Subject) -> int:
  """Counts the explanations of the one vector."""
  return subject.n_constant if len(subject.training_rows) else 0


SUITE = Suite(run, explanations)
