"""Do explanations say what is plainly so of a text: its tense, its number, a gender, a kind of name, its topic?

Passages are written from templates, each cue in every class, and read at their last token, well behind the cue. A probe
on the activation comes first: what it does not hold, no explanation can say.
"""

from nla_jax.evaluation import labelling
from nla_jax.evaluation.items.labelled import SENTENCES, sentences
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

NAME = "classification"
_DRAW = 20  # the number of its first draw, see `Subject.explain`


def run(subject: Subject) -> Measured:
  """Measures each task.

  Raises:
    LeftOutError: there is no base model to read and to judge with.
  """
  n = labelling.items_of_a_task(subject)
  found = []
  for i, name in enumerate(SENTENCES):
    read = labelling.read_task(subject, sentences(name, n, subject.seed))
    found.append(labelling.measure(subject, read, _DRAW + i, rules=name))
  question = "Do explanations say the tense, the number, the gender, the kind of name, the topic?"
  return Measured({}, findings={NAME: labelling.finding(question, found, subject)})


SUITE = Suite(run)
