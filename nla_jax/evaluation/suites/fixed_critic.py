"""The round trip under an AR that is fixed: the AV's explanations, read by the AR that RL started from.

AV and AR learn together in RL, so a gain may be a code between the two. This AR never read the AV's words after SFT.
"""

from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite


def run(subject: Subject) -> Measured:
  """Scores the sampled explanations; empty where there is no other AR than the evaluated one."""
  if subject.fixed_critic is None:
    return Measured({})
  return Measured({"fixed_critic": subject.score(subject.sampled.texts, subject.fixed_critic)})


SUITE = Suite(run)
