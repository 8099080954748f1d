"""How a grader agrees with explanations that a person labelled: labelled/*.jsonl, in two halves.

The rules half was in sight while the rules were written; the held-out half was written when they were frozen.
"""

import json
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from nla_jax.auditing.grader import VERDICTS, Grader

HALVES = ("rules_half", "held_out_half")
OTHER = "no trap"


class Labelled(NamedTuple):
  """An explanation and what a person says of it.

  Attributes:
    text: the explanation.
    verdict: yes, no or unclear.
    trap: which trap it is an example of; None of every other.
    form: `readout` or `prose`.
  """

  text: str
  verdict: str
  trap: str | None
  form: str


class Agreement(NamedTuple):
  """What a grader makes of labelled explanations.

  Attributes:
    n: how many there are.
    share: of equal verdicts.
    confusion: {a person's verdict: {the grader's: how many}}.
    traps: {a person's trap: {the grader's verdict or, of a no, its trap: how many}}.
    misses: (explanation, the grader's verdict, its rule) of each that differs.
  """

  n: int
  share: float
  confusion: dict[str, dict[str, int]]
  traps: dict[str, dict[str, int]]
  misses: list[tuple[Labelled, str, str]]


def labelled(half: str, topic: str = "eval_awareness") -> list[Labelled]:
  """The labelled explanations of one half."""
  file = resources.files("nla_jax.auditing") / "labelled" / f"{topic}_{half}.jsonl"
  return [Labelled(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def agreement(grader: Grader, examples: Sequence[Labelled]) -> Agreement:
  """Compares a grader's verdicts with a person's."""
  grades = grader.grades([one.text for one in examples])
  confusion = {verdict: dict.fromkeys(VERDICTS, 0) for verdict in VERDICTS}
  traps: dict[str, Counter] = {}
  misses = []
  for one, grade in zip(examples, grades, strict=True):
    confusion[one.verdict][grade.verdict] += 1
    if one.verdict == "no":
      named = grade.reasoning.removeprefix("no/") if grade.reasoning.startswith("no/") else OTHER
      said = named if grade.verdict == "no" else grade.verdict
      traps.setdefault(one.trap or OTHER, Counter())[said] += 1
    if grade.verdict != one.verdict:
      misses.append((one, grade.verdict, grade.reasoning))

  right = sum(confusion[verdict][verdict] for verdict in VERDICTS)
  counted = {trap: dict(several) for trap, several in traps.items()}
  return Agreement(len(examples), right / len(examples), confusion, counted, misses)


def in_words(found: Agreement) -> str:
  """The agreement as tables of Markdown."""
  lines = [f"{found.share:.1%} of {found.n} verdicts agree.", ""]
  lines += ["| a person says | yes | no | unclear |", "|---|---|---|---|"]
  for verdict, counts in found.confusion.items():
    lines.append(f"| {verdict} | " + " | ".join(str(counts[one]) for one in VERDICTS) + " |")
  lines += ["", "| trap that a person names | what the grader says |", "|---|---|"]
  for trap, counts in sorted(found.traps.items()):
    said = ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda one: -one[1]))
    lines.append(f"| {trap} | {said} |")
  return "\n".join(lines)
