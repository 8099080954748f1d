"""Tables and charts of parts of the rows in the report: by source, role, position, and number of explanations."""

from collections.abc import Mapping, Sequence
from typing import Any

from nla_jax import quantities
from nla_jax.evaluation.report import charts, verdict
from nla_jax.evaluation.report.charts import number
from nla_jax.evaluation.report.guard import drawn
from nla_jax.quantities import Found

_ALL = "all"  # the name of the curve of all rows beside those of sources and roles


def alone(metrics: Mapping[str, Any], section: str) -> dict[str, Any] | None:
  """FVEs, and the round trip above each control, with a column for each source or role; None where there are none.

  Args:
    metrics: of the evaluation.
    section: `BY_SOURCE` or `BY_ROLE`.
  """
  parts = quantities.parts(metrics, section)
  if not parts:
    return None
  fves = {name: verdict.fve_rows(part, {}) for name, part in parts.items()}
  above = {name: quantities.above_controls(part) for name, part in parts.items()}
  shares = {
    name: quantities.measured(part, "difference", "retention") for name, part in parts.items()
  }
  return {
    "names": [{"name": name, "counts": _counts(part)} for name, part in parts.items()],
    "fves": _columns(fves),
    "above": _columns(above),
    "others": _columns(shares),
  }


def by_n(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
  """FVEs with a column for each number of explanations; None where one alone was drawn."""
  parts = quantities.parts(metrics, quantities.BY_N)
  if not parts:
    return None
  found = {name: quantities.measured(part, "result") for name, part in parts.items()}
  names = [{"name": f"n = {name}", "counts": _counts(part)} for name, part in parts.items()]
  return {"names": names, "fves": _columns(found)}


def positions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
  """A chart and a table of each quantity that was measured by position: of all rows, and of each source and role."""
  whole = {_ALL: metrics, **quantities.alone(metrics)}
  curves = {name: quantities.parts(part, quantities.BY_POSITION) for name, part in whole.items()}

  # Ranges in the order of positions: a source may lack some that another one has.
  ranges = dict.fromkeys(name for curve in curves.values() for name in curve)
  ranges = sorted(ranges, key=_first_position)
  charts_found = []
  for quantity in quantities.TABLE:
    series = {name: _curve(curve, quantity) for name, curve in curves.items()}
    series = {name: points for name, points in series.items() if points}
    if series:
      charts_found.append(_position_chart(quantity, ranges, series))
  return charts_found


def _first_position(name: str) -> int:
  digits = name.rstrip("+").split("-")[0]
  return int(digits) if digits.isdigit() else 0


def _curve(ranges: Mapping[str, Any], quantity: quantities.Quantity) -> dict[str, Found]:
  if quantity.kind != "result":
    return {}
  every = {name: quantities.find(part, quantity.key) for name, part in ranges.items()}
  return {name: one for name, one in every.items() if one is not None}


def _position_chart(
  quantity: quantities.Quantity, ranges: Sequence[str], series: Mapping[str, dict[str, Found]]
) -> dict[str, Any]:
  points_of = {
    name: [(ranges.index(at), one.value, one.ci95) for at, one in points.items()]
    for name, points in series.items()
  }
  rows = [
    {"label": name, "cells": [_cell(points.get(at)) for at in ranges]}
    for name, points in series.items()
  ]
  return {
    "title": quantity.label,
    "svg": drawn(charts.ranges, ranges, points_of, f"{quantity.label} by position"),
    "legend": list(series),
    "names": [name.replace("-", "–") for name in ranges],
    "rows": rows,
  }


def _columns(parts: Mapping[str, Sequence[Found]]) -> list[dict[str, Any]]:
  """A row for each quantity that any part has, with a cell for each part."""
  tables = {name: {one.quantity.key: one for one in found} for name, found in parts.items()}
  rows = {one.quantity.key: one.quantity for found in parts.values() for one in found}
  return [
    {
      "label": quantity.label,
      "kind": quantity.kind,
      "cells": [_cell(table.get(key)) for table in tables.values()],
    }
    for key, quantity in rows.items()
  ]


def _cell(one: Found | None) -> dict[str, str]:
  if one is None:
    return {"value": "—", "interval": ""}
  interval = f"{number(one.ci95[0])} to {number(one.ci95[1])}" if one.ci95 else "no interval"
  return {"value": number(one.value, 3), "interval": interval}


def _counts(part: Mapping[str, Any]) -> str:
  """How many activations and groups stand behind a column."""
  counted = [quantities.find(part, key) for key in ("rows", "groups")]
  return ", ".join(f"{one.value:,.0f} {one.quantity.name}" for one in counted if one is not None)
