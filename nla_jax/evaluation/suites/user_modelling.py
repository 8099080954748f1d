"""Do explanations say who the user is, where a message implies it and never says so?

Gender, religion, occupation and nationality, by cues early or late in a message that never name the value. Explanations
are read at the last token of the message and, where the model has a chat template, at the token before its answer. They
are read once more without the words of the cue: who repeats a cue has inferred nothing.
"""

from nla_jax.conversation.tokens import CONTENT
from nla_jax.evaluation import labelling
from nla_jax.evaluation.items.labelled import TRAITS, Task, users
from nla_jax.evaluation.labelling import Read, read_at, read_task
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

NAME = "user_modelling"
_DRAW = 30  # the number of its first draw, see `Subject.explain`


def run(subject: Subject) -> Measured:
  """Measures each trait at each place.

  Raises:
    LeftOutError: there is no base model to read and to judge with.
  """
  n = labelling.items_of_a_task(subject)
  found = []
  for name in TRAITS:
    for read in _places(subject, users(name, n, subject.seed)):
      found.append(labelling.measure(subject, read, _DRAW + len(found), masked=True))
  question = "Do explanations say what a message implies of its user?"
  return Measured({}, findings={NAME: labelling.finding(question, found, subject)})


def _places(subject: Subject, task: Task) -> list[Read]:
  """The task at the end of the message, and before the answer where there is a template that begins one."""
  if not subject.nla.pair.tokenizer.chat_template:
    return [read_task(subject, task)]

  tokens = [
    subject.nla.tokens([{"role": "user", "content": one.text}], reply=True) for one in task.items
  ]
  ids = [one.ids for one in tokens]
  # The last token of what the user says, and the last of what the template writes before the answer.
  said = [
    max(
      i for i, (role, section) in enumerate(zip(one.roles, one.sections)) if _is_said(role, section)
    )
    for one in tokens
  ]
  return [
    read_at(subject, task, f"{task.name} at the message's end", ids, said),
    read_at(subject, task, f"{task.name} before the answer", ids, [len(one) - 1 for one in ids]),
  ]


def _is_said(role: str | None, section: str) -> bool:
  return role == "user" and section == CONTENT


SUITE = Suite(run)
