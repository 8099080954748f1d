"""What a suite that answers a question found: its table of scores, the gates that they passed, and a verdict.

Numbers are kept as they were measured: what a gate speaks against is marked (`void`), never left out.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_VOID = " (void)"
_DIGITS = 3  # of a score on a terminal


class Score(NamedTuple):
  """One cell of a suite's table.

  Attributes:
    row: what was read: "explanation", "shuffled", "skyline", …
    column: the arm and the judge: "hard, frozen target".
    value: the score, in the finding's unit.
    ci95: (low, high) over documents; None where there is no interval.
    n: items.
    chance: what a judge that reads nothing would score; None where that is not known.
  """

  row: str
  column: str
  value: float
  ci95: tuple[float, float] | None
  n: int
  chance: float | None = None


class Gate(NamedTuple):
  """A condition without which the scores mean nothing.

  Attributes:
    name: what is asked.
    passed: whether it holds.
    detail: the numbers that decided it.
  """

  name: str
  passed: bool
  detail: str


class Finding(NamedTuple):
  """What a suite found.

  Attributes:
    question: one sentence.
    verdict: one sentence that follows from the intervals and the gates.
    unit: of the scores: "share of 1", "FVE", "nats per token".
    scores: the table's cells, in the order of rows and columns.
    gates: what the scores had to pass.
    curves: (x, y) points by name, for the figure.
    axes: what the figure's x and y are.
    examples: items as plain values, for the report.
    data: further JSON values, for programs; the report does not show them.
  """

  question: str
  verdict: str
  unit: str
  scores: tuple[Score, ...]
  gates: tuple[Gate, ...] = ()
  curves: dict[str, list[tuple[float, float]]] = {}  # noqa: RUF012 - never changed
  axes: tuple[str, str] = ("", "")
  examples: tuple[dict, ...] = ()
  data: dict[str, Any] = {}  # noqa: RUF012


def void(column: str) -> str:
  """The name of a column whose judge failed a gate."""
  return column if is_void(column) else column + _VOID


def is_void(column: str) -> bool:
  """Says whether a column's judge failed a gate."""
  return column.endswith(_VOID)


def to_json(finding: Finding) -> dict[str, Any]:
  """A finding as JSON values; numbers that are not finite become None."""
  fields = finding._asdict()
  fields["scores"] = [one._asdict() for one in finding.scores]
  fields["gates"] = [one._asdict() for one in finding.gates]
  return _plain(fields)


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(key): _plain(one) for key, one in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(one) for one in value]
  if hasattr(value, "tolist"):
    return _plain(value.tolist())  # numpy's, of any shape
  # JSON has no NaN, and whoever reads the file would lose all of it.
  return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(fields: Mapping[str, Any]) -> Finding:
  """The finding that `to_json` wrote.

  Raises:
    TypeError, KeyError, ValueError: something else.
  """
  # Lists were tuples before JSON.
  scores = (Score(**{**one, "ci95": _interval(one["ci95"])}) for one in fields["scores"])
  curves = {
    name: [(float(x), float(y)) for x, y in points if x is not None and y is not None]
    for name, points in fields["curves"].items()
  }

  return Finding(
    question=fields["question"],
    verdict=fields["verdict"],
    unit=fields["unit"],
    # A score without a value is a hole in the table, not a number.
    scores=tuple(one for one in scores if one.value is not None),
    gates=tuple(Gate(**one) for one in fields["gates"]),
    curves=curves,
    axes=tuple(fields["axes"]),
    examples=tuple(fields["examples"]),
    data=dict(fields.get("data", {})),
  )


def _interval(ends: Any) -> tuple[float, float] | None:
  return None if ends is None or None in ends else (float(ends[0]), float(ends[1]))


def read_all(suites: Any) -> dict[str, Finding]:
  """Findings by suite name as metrics.json holds them; what is none is left out."""
  found = {}
  for name, fields in suites.items() if isinstance(suites, Mapping) else ():
    try:
      found[str(name)] = from_json(fields)
    # Files come from other versions: what this one cannot read must not cost the others.
    except (TypeError, KeyError, ValueError, AttributeError):
      continue
  return found


def rows_and_columns(scores: Iterable[Score]) -> tuple[list[str], list[str]]:
  """Names of the table's rows and columns, in the order in which scores first name them."""
  scores = list(scores)
  return list(dict.fromkeys(s.row for s in scores)), list(dict.fromkeys(s.column for s in scores))


def lines(name: str, finding: Finding) -> list[str]:
  """A finding for a terminal: the question, a line for each score, the gates that failed, and the verdict."""
  found = [f"{name}: {finding.question} ({finding.unit})"]
  for one in finding.scores:
    interval = f"[{one.ci95[0]:+.3f}, {one.ci95[1]:+.3f}]" if one.ci95 else "[no interval]"
    chance = "" if one.chance is None else f"  chance {one.chance:.{_DIGITS}f}"
    found.append(
      f"  {one.column + ': ' + one.row:58s} {one.value:+.{_DIGITS}f}  {interval}{chance}"
    )

  # What passed is in the report; here only what speaks against the numbers.
  found += [f"  failed: {gate.name} ({gate.detail})" for gate in finding.gates if not gate.passed]
  return [*found, f"  {finding.verdict}"]
