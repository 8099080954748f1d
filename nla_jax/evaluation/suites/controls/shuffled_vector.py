"""Control: the explanation is of an activation of another document."""

from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite


def run(subject: Subject) -> Measured:
  """Scores each row on what was rebuilt from another row's explanation; nothing is sampled or rebuilt again."""
  return Measured({"shuffled_vector": subject.errors(subject.rebuilt[subject.other_rows])})


SUITE = Suite(run)
