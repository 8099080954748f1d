"""The report's charts with their titles, legends and notes: time by stage, learning curves, per-activation FVE.

A series that is missing or holds no finite number is left out and named; nothing is interpolated or drawn as zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.evaluation.report import charts, verdict
from nla_jax.evaluation.report.charts import number

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
      "Parse rate": (("parse_rate", "parse rate"),),
    },
  ),
}


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
  minutes = round(seconds / 60)
  return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def timing(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
  stages = [
    (str(t["stage"]), float(t["seconds"])) for t in measured if verdict.estimate(t.get("seconds"))
  ]
  total = sum(seconds for _, seconds in stages)
  if total <= 0:
    return None
  shares = [seconds / total for _, seconds in stages]
  listed = [
    {"name": name, "duration": _duration(seconds), "share": f"{100 * share:.0f} %"}
    for (name, seconds), share in zip(stages, shares)
  ]
  return {"total": _duration(total), "bar": charts.stacked_bar(shares), "stages": listed}


def _series(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
  """(step, value) of the records that hold a finite number under `key`, by step."""
  points = [
    (r["step"], r[key])
    for r in records
    if verdict.estimate(r.get("step")) and verdict.estimate(r.get(key))
  ]
  return sorted((float(step), float(value)) for step, value in points)


def _panel(title: str, series: Mapping[str, list[tuple[float, float]]]) -> dict[str, Any]:
  last = next(iter(series.values()))[-1][1]
  return {
    "title": title,
    "last": number(last, 3),
    "legend": list(series),
    "chart": charts.lines(series, title),
  }


def curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
  """The panels of each stage, the further numbers it logged, and the names of those it should have logged."""
  stages = []
  for stage in [*_CURVES, *(name for name in logs if name not in _CURVES)]:
    records = logs.get(stage) or ()
    name, wanted = _CURVES.get(stage, (stage.replace("_", " "), {}))
    panels, missing, known = [], [], {"step"}
    for title, keys in wanted.items():
      known.update(key for key, _ in keys)
      series = {label: points for key, label in keys if (points := _series(records, key))}
      missing += [] if series else [title.lower() if title[:2].istitle() else title]
      panels += [_panel(title, series)] if series else []
    extra = {
      key: points
      for r in records
      for key in r
      if key not in known and (points := _series(records, key))
    }
    more = [_panel(key.replace("_", " "), {key: points}) for key, points in extra.items()]
    stages.append({"name": name, "panels": panels, "more": more, "missing": missing})
  return stages if any(stage["panels"] or stage["more"] for stage in stages) else []


def row_charts(rows: Mapping[str, Sequence[float | None]]) -> list[dict[str, Any]]:
  """The histogram of per-activation FVE, and the round trip against the teacher's text, the position and the norm."""
  arrays = {key: np.array([np.nan if v is None else v for v in rows[key]], float) for key in rows}
  names = {
    "fve_round_trip": "round trip",
    "fve_shuffled": "shuffled vector",
    "fve_teacher_text": "teacher's text",
  }
  held = {
    name: arrays[key][np.isfinite(arrays[key])] for key, name in names.items() if key in arrays
  }
  held = {name: values for name, values in held.items() if len(values)}
  if not held:
    return []
  first = next(iter(held))
  note = (
    f"{first.capitalize()}: median {number(float(np.median(held[first])))}, above zero for "
    f"{100 * float(np.mean(held[first] > 0)):.0f} % of {len(held[first]):,} activations. The FVE is the mean of "
    "these. Rare values further left are counted in the first bin."
  )
  found = [
    {
      "title": "How it is spread",
      "svg": charts.histogram(held, "Per-activation FVE"),
      "note": note,
      "legend": list(held),
    }
  ]
  against = (
    (
      "fve_teacher_text",
      "Against the teacher's text",
      "FVE of the teacher's text",
      "Above the dashed line the AV's own text was the better one. ",
    ),
    ("position", "Against the position", "position in the document, tokens", ""),
    ("norm", "Against the norm", "norm of the raw activation", ""),
  )
  for key, title, label, meaning in against:
    x, y = arrays.get(key), arrays.get("fve_round_trip")
    if x is None or y is None or len(x) != len(y):
      continue
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() >= 2:
      svg = charts.scatter(
        x[both], y[both], label, "FVE of the round trip", diagonal=key == "fve_teacher_text"
      )
      note = (
        f"{meaning}{int(both.sum()):,} activations; those beyond the axes are drawn on their edge."
      )
      found.append({"title": title, "svg": svg, "note": note, "legend": []})
  return found
