"""The report's charts over training: one for each suite, its score against FVE, a point for each kept step of RL.

Of a suite's many columns one judge is shown, the mean of its arms or tasks. Of the controls stand those of the last
step, as flat lines: floor (another row's explanation), what costs nothing, ceiling (the context itself, a probe on h).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.evaluation.findings import Finding, is_void, read_all
from nla_jax.evaluation.report import charts
from nla_jax.evaluation.report.guard import drawn

EXPLANATION = "explanation"
_PROBE = "probe"
# Rows that do not depend on the AV that is trained, but for the first: floor, baselines, ceiling.
_CONTROLS = ("shuffled", "last_words", "logit_lens", "sae", "skyline")


def charts_of(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """A chart for each suite.

  Args:
    points: {"step", "fve": {"value", "ci95"}, "suites": findings as JSON} of each step, ascending.
  """
  steps = [(one["step"], float(one["fve"]["value"]), read_all(one["suites"])) for one in points]
  names = dict.fromkeys(name for _, _, found in steps for name in found)
  return [_chart(name, steps) for name in names]


def _chart(name: str, steps: Sequence[tuple[int, float, dict[str, Finding]]]) -> dict[str, Any]:
  title = name.replace("_", " ").capitalize()
  here = [(step, fve, found[name]) for step, fve, found in steps if name in found]
  judge, columns = _columns([finding for _, _, finding in here])
  line = [
    (fve, value)
    for _, fve, finding in here
    if (value := _mean(finding, EXPLANATION, columns)) is not None
  ]
  if not line:
    # Such as a rule that the target does not use: nothing was asked of explanations.
    return {"title": title, "note": "", "svg": "", "missing": here[-1][2].verdict}

  series = {EXPLANATION: sorted(line)}
  low, high = min(x for x, _ in line), max(x for x, _ in line)
  last = here[-1][2]
  for row in _CONTROLS:
    value = _mean(last, row, columns)
    if value is not None:
      series[row.replace("_", " ")] = [(low, value), (high, value)]
  probes = [one.value for one in last.scores if one.row == _PROBE]
  if probes:
    ceiling = float(np.mean(probes))
    series["probe on h"] = [(low, ceiling), (high, ceiling)]

  arms = f", mean of {len(columns)}" if len(columns) > 1 else ""
  svg = drawn(charts.lines, series, f"{title} against FVE", "FVE", last.unit)
  return {"title": title, "note": f"{judge}{arms}", "svg": svg, "legend": list(series)}


def _columns(findings: Sequence[Finding]) -> tuple[str, list[str]]:
  """The judge that is shown, the first with an explanation's score at every step, and its columns."""
  every = [
    {one.column for one in finding.scores if one.row == EXPLANATION and not is_void(one.column)}
    for finding in findings
  ]
  asked = [one for one in every if one]
  if not asked:
    return "", []
  # In the order of the table; a judge that was void at one step is shown at none.
  sound = set.intersection(*asked)
  ordered = [
    one.column for one in findings[-1].scores if one.row == EXPLANATION and one.column in sound
  ]
  if not ordered:
    return "", []
  judge = ordered[0].rsplit(", ", 1)[-1]
  return judge, [one for one in dict.fromkeys(ordered) if one.rsplit(", ", 1)[-1] == judge]


def _mean(finding: Finding, row: str, columns: Sequence[str]) -> float | None:
  """The mean of a row over columns; None where one of them lacks it."""
  found = {one.column: one.value for one in finding.scores if one.row == row}
  if not columns or not all(column in found for column in columns):
    return None
  return float(np.mean([found[column] for column in columns]))
