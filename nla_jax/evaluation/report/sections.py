"""The report's charts with their titles, legends and notes: time by stage, learning curves, per-activation FVE.

A series that is missing or holds no finite number is left out and named; nothing is interpolated or drawn as zero.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax import quantities
from nla_jax.evaluation.report import charts
from nla_jax.evaluation.report.charts import number
from nla_jax.evaluation.report.guard import drawn

# Curves by stage: its title, then the panels, each a title and the series that share its axes (key, name).
_CURVES = {
  "av_sft": (
    "Verbalizer, supervised (AV-SFT)",
    {
      "Loss": (("loss", "training"),),
      "Own against shuffled vector": (
        ("loss_own", "own vector"),
        ("loss_shuffled", "shuffled vector"),
      ),
    },
  ),
  "ar_sft": (
    "Reconstructor, supervised (AR-SFT)",
    {"Loss": (("loss", "training"),), "FVE": (("fve", "FVE"),)},
  ),
  "rl": (
    "Reinforcement learning",
    {
      "Reward": (("reward", "reward"),),
      "FVE": (("fve", "FVE"),),
      "KL to the SFT verbalizer": (("kl", "KL"),),
      "Entropy": (("entropy", "entropy"),),
      "Length in tokens": (("length", "length"),),
      quantities.QUANTITIES["parse_rate"].label: (("parse_rate", "parse rate"),),
    },
  ),
}


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
  # Whole minutes from here on: nobody plans by the second.
  minutes = round(seconds / 60)
  return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def timing(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
  """The bar of time by stage with its legend, of {"stage", "seconds"}; None where no time was measured."""
  stages = [
    (str(t["stage"]), float(t["seconds"])) for t in measured if _is_number(t.get("seconds"))
  ]
  total = sum(seconds for _, seconds in stages)
  if total <= 0:
    return None

  shares = [seconds / total for _, seconds in stages]
  listed = [
    {"name": name, "duration": _duration(seconds), "share": f"{100 * share:.0f} %"}
    for (name, seconds), share in zip(stages, shares)
  ]
  return {"total": _duration(total), "bar": drawn(charts.stacked_bar, shares), "stages": listed}


def _is_number(value: Any) -> bool:
  try:
    return math.isfinite(float(value))
  except (TypeError, ValueError):
    return False


def _series(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
  """(step, value) of the records that hold a finite number under `key`, by step."""
  points = [(r.get("step"), r.get(key)) for r in records]
  return sorted(
    (float(step), float(value)) for step, value in points if _is_number(step) and _is_number(value)
  )


def _panel(title: str, series: Mapping[str, list[tuple[float, float]]]) -> dict[str, Any]:
  # The first series is the one that the panel is about.
  last = next(iter(series.values()))[-1][1]
  return {
    "title": title,
    "last": number(last, 3),
    "legend": list(series),
    "chart": drawn(charts.lines, series, title),
  }


def curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
  """The panels of each stage, the further numbers it logged, and the names of those it should have logged."""
  # Stages with known panels first, in the order of the run, then whatever else was logged.
  names = [*_CURVES, *(name for name in logs if name not in _CURVES)]
  stages = [_stage_curves(name, logs.get(name) or ()) for name in names]
  return stages if any(stage["panels"] or stage["more"] for stage in stages) else []


def _stage_curves(stage: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  name, wanted = _CURVES.get(stage, (stage.replace("_", " "), {}))
  panels, missing, known = [], [], {"step"}
  for title, keys in wanted.items():
    known.update(key for key, _ in keys)
    series = {label: points for key, label in keys if (points := _series(records, key))}
    if series:
      panels.append(_panel(title, series))
    else:
      # Inside the sentence that lists them; an abbreviation keeps its capitals.
      missing.append(title.lower() if title[:2].istitle() else title)

  # What was logged without a panel of its own is not lost: it opens below the others.
  keys = dict.fromkeys(key for record in records for key in record if key not in known)
  extra = {key: points for key in keys if (points := _series(records, key))}
  more = [_panel(key.replace("_", " "), {key: points}) for key, points in extra.items()]
  return {"name": name, "panels": panels, "more": more, "missing": missing}


# Columns of the histogram; the first one that was measured is filled.
_SPREAD = ("round_trip", "shuffled_vector", "teacher_text")


def row_charts(rows: Mapping[str, Sequence[float | None]]) -> list[dict[str, Any]]:
  """The histogram of per-activation FVE, and the round trip against the teacher's text, the position and the norm.

  `rows` has one column for each FVE, by the quantity's key, and "position" and "norm".
  """
  columns = {
    key: np.array([np.nan if value is None else value for value in rows[key]], float)
    for key in rows
  }

  # All methods in one histogram: the round trip is judged by how far it stands apart from the shuffled vector.
  found = _spread({key: columns[key] for key in _SPREAD if key in columns})
  if not found:
    return []

  teacher = quantities.QUANTITIES["teacher_text"].name
  meaning = "Above the dashed line the AV's own text was the better one. "
  against = (
    ("teacher_text", f"Against the {teacher}", f"FVE of the {teacher}", meaning),
    ("position", "Against the position", "position in the document, tokens", ""),
    ("norm", "Against the norm", "norm of the raw activation", ""),
  )
  y = columns.get(quantities.HEADLINE)
  for key, title, label, meaning in against:
    x = columns.get(key)
    if x is None or y is None or len(x) != len(y):
      continue

    # A row without a number in either column is left out, never drawn at zero.
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 2:
      continue
    svg = drawn(
      charts.scatter,
      x[both],
      y[both],
      label,
      "FVE of the round trip",
      diagonal=key == "teacher_text",
    )
    note = (
      f"{meaning}{int(both.sum()):,} activations; those beyond the axes are drawn on their edge."
    )
    found.append({"title": title, "svg": svg, "note": note, "legend": []})
  return found


def _spread(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
  """The histogram of these columns; empty where they hold no finite number."""
  held = {}
  for key, values in columns.items():
    finite = values[np.isfinite(values)]
    if len(finite):
      held[quantities.QUANTITIES[key].label] = finite
  if not held:
    return []

  first, values = next(iter(held.items()))
  note = (
    f"{first}: median {number(float(np.median(values)))}, above zero for "
    f"{100 * float(np.mean(values > 0)):.0f} % of {len(values):,} activations. The FVE is the mean of "
    "these. Rare values further left are counted in the first bin."
  )
  svg = drawn(charts.histogram, held, "Per-activation FVE")
  return [{"title": "How it is spread", "svg": svg, "note": note, "legend": list(held)}]
