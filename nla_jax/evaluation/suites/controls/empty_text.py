"""Control: the AR reads an empty explanation."""

from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite


def run(subject: Subject) -> Measured:
  """Scores what the AR assumes without being told anything."""
  return Measured({"empty_text": subject.score([None] * subject.n)})


SUITE = Suite(run)
