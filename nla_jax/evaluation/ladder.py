"""The rungs of evidence of each question: which of them hold, and which one broke first.

What explanations do not say means little where the target does not do it, or where the activation does not hold it;
and what the AR finds and no judge of words does may be a code. So a question is read from the bottom up, and the first
rung that does not hold says what failed.

1. behaviour: the target does what is asked about.
2. activation: a probe finds it in the activation.
3. words: a judge that reads the words alone, and is sound, finds it in the explanation.
4. AR(words): it is in what the AR rebuilds from the explanation.
5. causal: an edit of the explanation moves the target. No suite measures it; steering does.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from nla_jax.evaluation.findings import Finding, Score, is_void, read_all

BEHAVIOUR, ACTIVATION, WORDS, REBUILT, CAUSAL = RUNGS = (
  "behaviour",
  "activation",
  "words",
  "AR(words)",
  "causal",
)
HOLDS, PART, BROKEN, UNKNOWN = "holds", "in part", "broken", "not known"
# Suites that ask whether something is said; the others measure how texts carry or read.
SUITES = ("suffix_prediction", "classification", "user_modelling", "hints", "sandbagging")
# How names begin or end that suites give to gates and columns.
_BEHAVIOUR_GATE, _ACTIVATION_GATE = "behaviour, ", "in the activation, "
_AR, _PROBE, _TARGET = "AR", "probe on h", "target: "
# Of areas under the curve the contrast that a topic cannot win decides.
_CONTRAST, _HARD = "against ", "against harmful, answered"


class Rung(NamedTuple):
  """One rung of one question.

  Attributes:
    rung: one of `RUNGS`.
    state: `holds`, `in part` (of several tasks), `broken`, or `not known` where no judge is sound or nobody asked.
    detail: the numbers that decided it.
  """

  rung: str
  state: str
  detail: str


class Cell(NamedTuple):
  """An explanation's score by one judge on one task.

  Attributes:
    task: its name; "" of a suite with one.
    judge: its name.
    sound: whether it passed its gates.
    score: the score.
  """

  task: str
  judge: str
  sound: bool
  score: Score


def of_suites(suites: Any) -> dict[str, list[dict[str, str]]]:
  """The rungs of each question among the findings of metrics.json, by suite, as JSON values."""
  found = read_all(suites)
  return {name: [one._asdict() for one in rungs(found[name])] for name in SUITES if name in found}


def rungs(finding: Finding) -> list[Rung]:
  """The rungs of a question, from the bottom up."""
  lower = [
    _of_gates(finding, BEHAVIOUR, _BEHAVIOUR_GATE),
    _of_gates(finding, ACTIVATION, _ACTIVATION_GATE),
  ]

  # The AR was trained with the AV and may read a code, so it has a rung of its own.
  cells = list(_cells(finding))
  words = [one for one in cells if not one.judge.startswith(_AR)]
  code = [one for one in cells if one.judge.startswith(_AR)]
  higher = [_of_cells(WORDS, words), _of_cells(REBUILT, code)]
  return [*lower, *higher, Rung(CAUSAL, UNKNOWN, "no suite asks it: nla steer")]


def first_broken(found: list[Mapping[str, str]]) -> str | None:
  """The lowest rung that is known not to hold; None where there is none."""
  return next((one["rung"] for one in found if one["state"] == BROKEN), None)


def _of_gates(finding: Finding, rung: str, prefix: str) -> Rung:
  """A rung that gates decide, one of each task."""
  gates = [one for one in finding.gates if one.name.startswith(prefix)]
  if not gates:
    return Rung(rung, UNKNOWN, "nobody asked")
  return _counted(rung, [(one.passed, one.detail) for one in gates])


def _of_cells(rung: str, cells: list[Cell]) -> Rung:
  """A rung that judges decide: of each task the first one that is sound, so that none is chosen by its score."""
  tasks = dict.fromkeys(one.task for one in cells)
  deciding = [
    next((one for one in cells if one.task == task and one.sound), None) for task in tasks
  ]

  # A judge that failed its gates neither holds nor breaks anything.
  known = [one.score for one in deciding if one is not None]
  if not known:
    return Rung(rung, UNKNOWN, "no judge passed its gates" if cells else "nobody asked")
  return _counted(rung, [(_above_chance(one), _shown(one)) for one in known])


def _counted(rung: str, found: list[tuple[bool, str]]) -> Rung:
  """A rung of several tasks, each with whether it holds and the numbers."""
  n = sum(holds for holds, _ in found)
  state = HOLDS if n == len(found) else PART if n else BROKEN
  detail = found[0][1] if len(found) == 1 else f"{n} of {len(found)} tasks"
  return Rung(rung, state, detail)


def _cells(finding: Finding) -> Iterator[Cell]:
  """What explanations score, judge by judge, in the order of the table."""
  failed = {one.name for one in finding.gates if not one.passed}
  for score in finding.scores:
    if score.row != "explanation" or score.column.startswith(_TARGET):
      continue
    if score.column.startswith(_CONTRAST) and not score.column.startswith(_HARD):
      continue
    task, _, judge = score.column.rpartition(", ")
    if _PROBE in judge or score.chance is None:
      continue

    # Even the context itself was not read, or another row's text was: the score means nothing.
    gates = {f"skyline, {score.column}", f"shuffled at chance, {score.column}"}
    yield Cell(task, judge, not is_void(score.column) and not gates & failed, score)


def _above_chance(score: Score) -> bool:
  return score.ci95 is not None and score.ci95[0] > score.chance


def _shown(score: Score) -> str:
  interval = f" [{score.ci95[0]:.2f}, {score.ci95[1]:.2f}]" if score.ci95 else ""
  return f"{score.value:.2f}{interval}, chance {score.chance:.2f}"
