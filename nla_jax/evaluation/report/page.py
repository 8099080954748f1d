"""The report of an evaluation: one HTML file that needs no network and can be kept beside the checkpoint.

`write_report` takes the plain dict that the evaluation harness gathers and renders templates/report.html. Every text
in it comes from documents or models and may be hostile: jinja2 escapes all of it, the examples travel as JSON and
enter the page as textContent, and a Content-Security-Policy allows the page's own script by hash and nothing else.

What is missing is left out and said to be missing; what speaks against the run stands in the headline (`findings`).
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from nla_jax.errors import NLAError
from nla_jax.evaluation.report import charts, sections, verdict
from nla_jax.evaluation.report.charts import number

# Other numbers of metrics.json: key -> (label, what it is).
_OTHERS = {
  "parse_rate": (
    "Parse rate",
    "Share of sampled explanations that closed their tags within the length cap. The others are scored as empty.",
  ),
  "distinct": (
    "Distinct explanations",
    "Different texts per activation. Near 0: the AV says the same of everything.",
  ),
  "tokens_mean": ("Length", "Mean tokens of an explanation. Longer explanations buy FVE."),
  "baseline_variance": (
    "Baseline variance b",
    "The error of always answering the mean direction: what FVE is measured against.",
  ),
  "fve_inflated": (
    "FVE, inflated definition",
    "The same reconstructions against a mean scaled back to unit norm. That baseline is worse than the best "
    "constant, so this number is larger without a better reconstruction. Shown only to compare with work that "
    "reports it.",
  ),
}
_AV = {
  "loss_own": (
    "AV loss, own vector",
    "Nats a token on the teacher's held-out text, given the right activation.",
  ),
  "loss_shuffled": (
    "AV loss, shuffled vector",
    "The same given another activation. Equal: the vector is ignored.",
  ),
}


def write_report(path: str | Path, report: Mapping[str, Any]) -> Path:
  """Writes the report as one self-contained HTML file, atomically.

  Args:
    path: the file to write; its folder must exist.
    report: {"title", "config", "run", "timing", "metrics", "curves", "rows", "examples"}, all but "metrics" optional;
      an estimate is {"value", "ci95": [low, high] or None, "n"} or a bare number. Also understood:
      "definitions" {row key: sentence} in place of the standard ones, and "examples_note", how they were chosen.

  Returns:
    The path written.

  Raises:
    NLAError: "metrics" is missing, or the folder does not exist.
  """
  if not isinstance(report.get("metrics"), Mapping):
    raise NLAError(
      "a report needs report['metrics'], the content of metrics.json; got keys " + ", ".join(report)
    )
  path = Path(path)
  if not path.parent.is_dir():
    raise NLAError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
  page = _environment().get_template("report.html").render(_context(report))
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
  try:
    with os.fdopen(handle, "w", encoding="utf-8") as file:
      file.write(page)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    Path(temporary).unlink(missing_ok=True)
    raise
  return path


def _template(name: str) -> str:
  return (resources.files("nla_jax.evaluation.report") / "templates" / name).read_text(
    encoding="utf-8"
  )


def _environment() -> jinja2.Environment:
  loader = jinja2.FunctionLoader(_template)
  return jinja2.Environment(
    loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
  )


def embed_json(value: Any) -> Markup:
  """JSON that is safe inside a script element: no character of it can end the element or open a comment."""
  text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
  for character in "<>&\u2028\u2029":
    text = text.replace(character, f"\\u{ord(character):04x}")
  # A lone surrogate (a token cut inside a character) cannot be written as UTF-8.
  return Markup(text.encode("utf-8", "replace").decode("utf-8"))


def _finite(value: Any) -> Any:
  """The value as JSON types, with numpy scalars unwrapped and non-finite numbers as None."""
  if isinstance(value, Mapping):
    return {str(key): _finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple, np.ndarray)):
    return [_finite(item) for item in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value


def _context(report: Mapping[str, Any]) -> dict[str, Any]:
  metrics, run = report["metrics"], dict(report.get("run") or {})
  rows = verdict.fve_rows(metrics, report.get("definitions") or {})
  cosines = {key: verdict.estimate(value) for key, value in (metrics.get("cosine") or {}).items()}
  others = _others(metrics)
  examples = list(report.get("examples") or ())
  script = _template("report.js")
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return {
    "title": report.get("title") or "Evaluation",
    "css": Markup(_template("report.css")),
    "script": Markup(script),
    "script_hash": f"sha256-{digest}",
    "subject": [(name, _text(run[name])) for name in ("model", "layer") if name in run],
    "headline": verdict.headline(metrics, rows),
    "tiles": _tiles(metrics),
    "run": [(name.replace("_", " "), _text(value)) for name, value in run.items()],
    "timing": sections.timing(report.get("timing") or ()),
    "config": report.get("config") or "",
    "forest": charts.forest(rows) if rows else "",
    "table": [{**_written(row), "cosine": _cosine(cosines.get(row["key"]))} for row in rows],
    "has_cosines": any(cosines.get(row["key"]) for row in rows),
    "not_run": verdict.not_run(rows),
    "others": others,
    "others_have_intervals": any(row["ci95"] for row in others),
    "curves": sections.curves(report.get("curves") or {}),
    "max_points": charts.MAX_POINTS,
    "row_charts": sections.row_charts(report.get("rows") or {}),
    "n_examples": len(examples),
    "examples_note": report.get("examples_note")
    or f"{len(examples)} held-out activations. They open in random order, so the first page is not a selection.",
    "examples_json": embed_json(examples),
  }


def _text(value: Any) -> str:
  if isinstance(value, float):
    return number(value, 3)
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, int):
    return f"{value:,}" if abs(value) >= 10_000 else str(value)
  if isinstance(value, Mapping):
    return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
  if isinstance(value, (list, tuple)):
    return ", ".join(_text(item) for item in value)
  return str(value)


def _written(row: Mapping[str, Any], digits: int = 3) -> dict[str, Any]:
  """A row with its numbers as text."""
  ci95 = row["ci95"]
  interval = f"{number(ci95[0], digits)} to {number(ci95[1], digits)}" if ci95 else "—"
  n = "" if row["n"] is None else f"{row['n']:,}"
  return {**row, "value": number(row["value"], digits), "interval": interval, "n": n}


def _cosine(estimate: Mapping[str, Any] | None) -> str:
  return number(estimate["value"], 3) if estimate else ""


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
  """The numbers that belong beside the headline, those that were measured."""
  value = lambda key: (verdict.estimate(metrics.get(key)) or {}).get("value")
  tiles = []
  av = metrics.get("av") or {}
  own, shuffled = (verdict.estimate(av.get(key)) for key in ("loss_own", "loss_shuffled"))
  if own and shuffled:
    note = f"nats lower with its own vector: {number(own['value'])} against {number(shuffled['value'])} shuffled"
    tiles.append(
      {"name": "AV loss gap", "value": number(shuffled["value"] - own["value"]), "note": note}
    )
  if (rate := value("parse_rate")) is not None:
    tiles.append(
      {
        "name": "Parse rate",
        "value": f"{100 * rate:.1f} %",
        "note": "explanations that are well formed",
      }
    )
  if (length := value("tokens_mean")) is not None:
    tiles.append(
      {"name": "Length", "value": number(length, 1), "note": "tokens an explanation, mean"}
    )
  if (b := value("baseline_variance")) is not None:
    tiles.append(
      {
        "name": "Baseline variance",
        "value": number(b, 3),
        "note": "error of answering the mean, 0 to 1",
      }
    )
  return tiles


def _others(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Everything measured that is not an FVE row: the known numbers first, then any further one under its key."""
  found = [(_AV[key], (metrics.get("av") or {}).get(key)) for key in _AV]
  gain = (metrics.get("fve") or {}).get(verdict.GAIN)
  found += [
    (("Gain of RL", "FVE of the round trip less that before RL, on the same rows (paired)."), gain)
  ]
  found += [(_OTHERS[key], metrics.get(key)) for key in _OTHERS]
  for key, value in metrics.items():
    if key in ("fve", "controls", "av", "cosine", "rows", "groups", *_OTHERS):
      continue
    name = key.replace("_", " ").capitalize()
    if isinstance(value, Mapping) and "value" not in value:
      found += [((f"{name}, {sub.replace('_', ' ')}", ""), item) for sub, item in value.items()]
    else:
      found.append(((name, ""), value))
  rows = []
  for (label, definition), value in found:
    if (estimate := verdict.estimate(value)) is not None:
      rows.append(_written({"label": label, "definition": definition, **estimate}))
  return rows
