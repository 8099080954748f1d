"""How well the size of an activation is read from its explanation; empty of a pair that has no head for it."""

import numpy as np

from nla_jax.evaluation import intervals
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite


def run(subject: Subject) -> Measured:
  """R² of the log of the norm on the held-out rows, from the sampled explanations."""
  if subject.nla.magnitude is None:
    return Measured({})

  known = np.log(np.linalg.norm(subject.activations.astype(np.float64), axis=1))
  errors = (np.log(subject.nla.magnitude.norms(subject.rebuilt)) - known) ** 2
  spread = float(known.var())
  if not spread:
    return Measured({})
  # R² is to the log-norm what FVE is to the direction: the same estimate, against the best constant.
  estimate = intervals.bootstrap(
    errors,
    subject.groups,
    spread,
    samples=subject.settings.bootstrap_samples,
    seed=subject.seed,
  )
  return Measured({}, {"magnitude_r2": estimate.to_dict()})


SUITE = Suite(run)
