"""The report's sections of suites that answer a question: a table, its gates, a figure and examples of each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nla_jax import quantities
from nla_jax.evaluation import ladder
from nla_jax.evaluation.findings import Finding, Score, is_void, read_all, rows_and_columns
from nla_jax.evaluation.report import charts
from nla_jax.evaluation.report.charts import number
from nla_jax.evaluation.report.guard import drawn

_EXAMPLES = 20  # shown of each suite


def answers(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
  """A section for each finding in metrics.json, in its order."""
  found = read_all(metrics.get(quantities.SUITES))
  return [_section(name, finding) for name, finding in found.items()]


_TONES = {ladder.HOLDS: "good", ladder.PART: "warn", ladder.BROKEN: "bad", ladder.UNKNOWN: "plain"}


def rungs(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
  """A row for each question of the ladder: its rungs with a tone, and the first that broke."""
  found = metrics.get(quantities.LADDER)
  rows = []
  for name, steps in found.items() if isinstance(found, Mapping) else ():
    rows.append(
      {
        "name": name.replace("_", " ").capitalize(),
        "anchor": f"suite-{name}",
        "rungs": [{**one, "tone": _TONES.get(one["state"], "plain")} for one in steps],
        "broken": ladder.first_broken(steps),
      }
    )
  return rows


def left_out(metrics: Mapping[str, Any]) -> list[str]:
  """A sentence for each suite that was asked for and lacked something."""
  missing = metrics.get(quantities.LEFT_OUT)
  every = missing.items() if isinstance(missing, Mapping) else ()
  return [f"The suite {name} was left out: {reason}." for name, reason in every]


def _section(name: str, finding: Finding) -> dict[str, Any]:
  # A curve without a point is none.
  curves = {label: points for label, points in finding.curves.items() if points}
  return {
    "name": name.replace("_", " ").capitalize(),
    "anchor": f"suite-{name}",
    "question": finding.question,
    "verdict": finding.verdict,
    "unit": finding.unit,
    "tables": [_table(finding.scores, columns) for columns in blocks(finding.scores)],
    "gates": [gate._asdict() for gate in finding.gates],
    "figure": drawn(_figure, curves, finding) if curves else "",
    "legend": list(curves),
    "examples": [_example(one) for one in finding.examples[:_EXAMPLES]],
  }


def blocks(scores: Sequence[Score]) -> list[list[str]]:
  """The columns of each table: a column joins the first one that has more than half of its rows.

  A suite that asks several things has rows that only some columns know; in one table most cells would be empty.
  """
  found: list[tuple[set[str], list[str]]] = []
  for column in rows_and_columns(scores)[1]:
    # Rows of one column may be few: of two, both must be there.
    mine = {one.row for one in scores if one.column == column}
    home = next((one for one in found if 2 * len(mine & one[0]) > len(mine)), None)

    if home is None:
      found.append((mine, [column]))
    else:
      home[1].append(column)
  return [columns for _, columns in found]


def _table(scores: Sequence[Score], columns: Sequence[str]) -> dict[str, Any]:
  """Rows and columns of one table, the chances at its foot."""
  here = [one for one in scores if one.column in columns]
  cells = {(one.row, one.column): one for one in here}
  chances = {column: _chance(here, column) for column in columns}
  rows = [
    {"label": row, "cells": [_cell(cells.get((row, c)), chances[c]) for c in columns]}
    for row in rows_and_columns(here)[0]
  ]

  if any(chance is not None for chance in chances.values()):
    bare = [{"value": _written(chances[c]), "note": ""} for c in columns]
    rows.append({"label": "chance", "cells": bare})

  heads = [{"name": c, "void": is_void(c), "n": _items(here, c)} for c in columns]
  return {"columns": heads, "rows": rows}


def _figure(curves: Mapping[str, Sequence[tuple[float, float]]], finding: Finding):
  ordered = {label: sorted(points) for label, points in curves.items()}
  return charts.lines(ordered, finding.question, *finding.axes)


def _chance(scores: Sequence[Score], column: str) -> float | None:
  """What a judge that reads nothing scores in a column; None where its rows differ in that."""
  found = {one.chance for one in scores if one.column == column and one.chance is not None}
  return found.pop() if len(found) == 1 else None


def _items(scores: Sequence[Score], column: str) -> str:
  counts = sorted({one.n for one in scores if one.column == column})
  return f"n = {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")


def _cell(one: Score | None, chance: float | None) -> dict[str, str]:
  if one is None:
    return {"value": "—", "note": ""}
  note = f"{number(one.ci95[0])} to {number(one.ci95[1])}" if one.ci95 else "no interval"
  # Where a column has no chance of its own, each cell says its own.
  if chance is None and one.chance is not None:
    note += f", chance {number(one.chance)}"
  return {"value": _written(one.value), "note": note}


def _written(value: float | None) -> str:
  return "—" if value is None or not math.isfinite(value) else number(value, 3)


def _example(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
  return [(str(key).replace("_", " "), _text(value)) for key, value in fields.items()]


def _text(value: Any) -> str:
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, float):
    return number(value, 3)
  if isinstance(value, Mapping):
    return " · ".join(f"{key}: {_text(one)}" for key, one in value.items())
  if isinstance(value, (list, tuple)):
    return " · ".join(map(_text, value))
  return "—" if value is None else str(value)
