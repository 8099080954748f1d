"""Do explanations say a rule that the context holds, the target uses and nobody states?

In a transcript of multiple-choice questions a black square stands at the right option of each, or at a wrong one. First
of all the target must use it: its probability of the marked option, with and without marks. Where it does not, there is
no rule to be said, and the suite ends. Then explanations at the last mark and before the answer are asked what the mark
means: P(right | it means right) − P(right | it means wrong), which is 0 by chance and 1 at best.
"""

import numpy as np

from nla_jax.evaluation import behaviour, labelling
from nla_jax.evaluation.findings import Finding, Score
from nla_jax.evaluation.intervals import Estimate
from nla_jax.evaluation.items.labelled import Item, Task
from nla_jax.evaluation.items.multiple_choice import Transcript, transcripts
from nla_jax.evaluation.judges.judge import Frame
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

NAME = "hints"
_DRAW = 50  # the number of its first draw, see `Subject.explain`
_RULES = ("right", "wrong")
_SIGNALS = tuple(f"the black square marks the {rule} option" for rule in _RULES)
_FRAME = Frame("Notes on a text: {text}\n\nThe black square ■ stands beside the option that is")
_QUESTION = (
  "Do explanations say what a mark means, a rule of the context that is used and not stated?"
)


def run(subject: Subject) -> Measured:
  """Measures whether the target uses the mark and, where it does, whether explanations say what it means.

  Raises:
    LeftOutError: there is no base model to ask.
  """
  items = transcripts(subject.settings.items, subject.seed)
  used, scores = _use(items, subject)
  gate = behaviour.shown("the mark is used", used)
  if not gate.passed:
    # A null of the explanations would not be one: there is nothing that they could say.
    verdict = (
      "The target does not show that it uses the mark: the option that it marks as right gains "
      f"{used.value:+.3f}{_interval(used)} over no mark, so nothing is asked of explanations."
    )
    found = Finding(_QUESTION, verdict, "share of 1", tuple(scores), (gate,))
    return Measured({}, findings={NAME: found})

  read = [
    labelling.measure(subject, one, _DRAW + i, rules="mark")
    for i, one in enumerate(_places(items, subject))
  ]
  found = labelling.finding(_QUESTION, read, subject)
  differences = [_difference(one) for one in found.scores]
  return Measured(
    {},
    findings={
      NAME: found._replace(
        unit="difference of shares", scores=(*scores, *differences), gates=(gate, *found.gates)
      )
    },
  )


def _use(items: list[Transcript], subject: Subject) -> tuple[Estimate, list[Score]]:
  """How much the mark that means right adds to the marked option, and the shares of that option."""
  with_marks = behaviour.letter_shares(subject, [one.text for one in items])
  without = behaviour.letter_shares(subject, [one.plain for one in items])
  marked, rows = np.array([one.marked for one in items]), np.arange(len(items))
  gain = with_marks[rows, marked] - without[rows, marked]

  scores, used = [], None
  for rule in _RULES:
    mine = np.array([one.rule == rule for one in items])
    groups = [one.group for one in items if one.rule == rule]
    one = behaviour.estimate(gain[mine], groups, subject)

    scores.append(
      Score(
        f"mark means {rule}", "target: gain of the marked option", one.value, one.ci95, one.n, 0.0
      )
    )
    used = one if rule == "right" else used
  return used, scores


def _places(items: list[Transcript], subject: Subject) -> list[labelling.Read]:
  """The task at the last mark, and at the token before the answer."""
  tokens = [subject.nla.tokens(one.text) for one in items]
  ids = [one.ids for one in tokens]
  # The first token with the mark's last character in it.
  marks = [
    next(i for i, end in enumerate(one.ends) if end >= item.mark_end)
    for one, item in zip(tokens, items)
  ]
  labelled = [Item(one.text, _RULES.index(one.rule), one.group, "") for one in items]
  found = []
  for name, places in (
    ("at the mark", marks),
    ("before the answer", [len(one) - 1 for one in ids]),
  ):
    task = Task(name, _RULES, _FRAME, tuple(labelled), _SIGNALS)
    found.append(labelling.read_at(subject, task, name, ids, places))
  return found


def _difference(one: Score) -> Score:
  """A share right of two balanced classes as the difference of shares: 2 · share − 1."""
  value = 2 * one.value - 1
  ci95 = None if one.ci95 is None else (2 * one.ci95[0] - 1, 2 * one.ci95[1] - 1)
  return one._replace(value=value, ci95=ci95, chance=0.0)


def _interval(one: Estimate) -> str:
  return f" [{one.ci95[0]:+.3f}, {one.ci95[1]:+.3f}]" if one.ci95 else ""


SUITE = Suite(run)
