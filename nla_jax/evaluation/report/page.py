"""The report of an evaluation: one HTML file that needs no network and can be kept beside the checkpoint.

`write_report` takes the plain dict that the evaluation harness gathers and renders templates/report.html. Every text
in it comes from documents or models and may be hostile: jinja2 escapes all of it, the examples travel as JSON and
enter the page as textContent, and a Content-Security-Policy allows the page's own script by hash and nothing else.

What is missing is left out and said to be missing; what speaks against the run stands in the headline (`findings`).
What cannot be shown is replaced by a sentence with the error, see `guard`.
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from nla_jax import files, quantities
from nla_jax.bucket import Place, place
from nla_jax.errors import NLAError
from nla_jax.evaluation.report import answers, charts, over_training, parts, sections, verdict
from nla_jax.evaluation.report.charts import number
from nla_jax.evaluation.report.guard import Sections, drawn
from nla_jax.quantities import Found

_DIGITS = {
  "tokens": 1,
  "nats a token": 2,
}  # of the large numbers beside the headline, by unit; else 3


_NO_HEADLINE = {
  "value": "—",
  "interval": "not shown",
  "n": None,
  "sentence": "The headline could not be written; the error stands below.",
  "findings": [],
}
_NO_RESULTS = {
  "forest": "",
  "table": [],
  "has_cosines": False,
  "not_run": [],
  "differences": [],
  "others": [],
  "unknown": [],
}


def write_report(path: str | Place, report: Mapping[str, Any]) -> Place:
  """Writes the report as one self-contained HTML file, atomically.

  Args:
    path: the file to write; its folder must exist.
    report: {"title", "config", "run", "timing", "metrics", "curves", "rows", "examples"}, all but "metrics" optional;
      an estimate is {"value", "ci95": [low, high] or None, "n"} or a bare number. Also understood:
      "definitions" {row key: sentence} in place of the standard ones, "examples_note", how they were chosen, and
      "over_training" [{"step", "fve": {"value", "ci95"}, "suites"}], one for each kept step of RL.

  Returns:
    The path written.

  Raises:
    NLAError: "metrics" is missing, or the folder does not exist.
  """
  if not isinstance(report.get("metrics"), Mapping):
    raise NLAError(
      "a report needs report['metrics'], the content of metrics.json; got keys " + ", ".join(report)
    )

  path = place(path)
  if isinstance(path, Path) and not path.parent.is_dir():
    raise NLAError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")

  # Beside the old report and then in its place: a reader never sees half a page.
  page = _environment().get_template("report.html").render(_context(report))
  if not isinstance(path, Path):
    files.write_bytes(path, page.encode(errors="replace"))
    return path
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
  try:
    # What is no character in a name or a path must not cost the page.
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
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
  # Undefined names are errors: a page with a hole in it would look as if nothing was measured.
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

  # JSON has no NaN: a browser would refuse all examples for the sake of one.
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value


def _context(report: Mapping[str, Any]) -> dict[str, Any]:
  """All that the template shows: texts, and numbers as texts."""
  metrics, run = report["metrics"], dict(report.get("run") or {})
  page = Sections()
  rows = page.made("The results", [], verdict.fve_rows, metrics, report.get("definitions") or {})
  examples = list(report.get("examples") or ())

  # The policy allows the page's own script by its hash, so that no text can bring another.
  script = _template("report.js")
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return {
    "title": report.get("title") or "Evaluation",
    "css": Markup(_template("report.css")),
    "script": Markup(script),
    "script_hash": f"sha256-{digest}",
    "subject": [(name, _text(run[name])) for name in ("model", "layer") if name in run],
    "headline": page.made("The headline", _NO_HEADLINE, verdict.headline, metrics, rows),
    "tiles": page.made("The numbers beside the headline", [], _tiles, metrics),
    # What was run, with the facts that were given and no others.
    "run": [(name.replace("_", " "), _text(value)) for name, value in run.items()],
    "timing": page.made("The time", None, sections.timing, report.get("timing") or ()),
    "config": report.get("config") or "",
    "curves": page.made("The curves", [], sections.curves, report.get("curves") or {}),
    "max_points": charts.MAX_POINTS,
    "row_charts": page.made(
      "FVE per activation", [], sections.row_charts, report.get("rows") or {}
    ),
    "n_examples": len(examples),
    "examples_note": report.get("examples_note")
    or f"{len(examples)} held-out activations. They open in random order, so the first page is not a selection.",
    "examples_json": page.made("The examples", Markup("[]"), embed_json, examples),
    "texts_json": json.dumps([(one.key, one.text) for one in quantities.TABLE if one.text]),
    **page.made("The results", _NO_RESULTS, _results, metrics, rows),
    **_breakdowns(page, metrics),
    "answers": page.made("The suites", [], answers.answers, metrics),
    "ladder": page.made("The ladder", [], answers.rungs, metrics),
    "left_out": page.made("What was left out", [], answers.left_out, metrics),
    "over_training": page.made(
      "Over training", [], over_training.charts_of, report.get("over_training") or ()
    ),
    # Last, when all of them have been made.
    "failures": page.failures,
  }


def _breakdowns(page: Sections, metrics: Mapping[str, Any]) -> dict[str, Any]:
  """The part of the context that shows parts of the rows."""
  return {
    "sources": page.made("The sources", None, parts.alone, metrics, quantities.BY_SOURCE),
    "roles": page.made("The roles", None, parts.alone, metrics, quantities.BY_ROLE),
    "positions": page.made("The positions", [], parts.positions, metrics),
    "by_n": page.made("The best of n", None, parts.by_n, metrics),
  }


def _results(metrics: Mapping[str, Any], rows: Sequence[Found]) -> dict[str, Any]:
  """The part of the context that shows what was measured on all rows."""
  cosines = metrics.get(quantities.COSINE) or {}
  table = []
  for row in rows:
    # A cosine without its FVE says nothing, so only rows with an FVE get theirs.
    cosine = quantities.found(row.quantity, cosines.get(row.quantity.key))
    table.append({**_written(row), "cosine": number(cosine.value, 3) if cosine else ""})

  above = quantities.above_controls(metrics)
  others = quantities.measured(metrics, "difference", "retention", "loss", "number")
  unknown = quantities.unknown(metrics, "loss") + quantities.unknown(metrics, "number")
  return {
    "forest": drawn(charts.forest, [_drawn(row) for row in rows]) if rows else "",
    "table": table,
    "has_cosines": any(row["cosine"] for row in table),
    "not_run": [one.label for one in verdict.not_run(rows)],
    "differences": [_written(one) for one in above],
    "others": [_written(one) for one in others],
    "unknown": [_written(one) for one in unknown],
  }


def _text(value: Any) -> str:
  """A value of the run's description, as a person writes it."""
  if isinstance(value, float):
    return number(value, 3)
  if isinstance(value, bool):  # before int, which a bool is too
    return "yes" if value else "no"
  if isinstance(value, int):
    return f"{value:,}" if abs(value) >= 10_000 else str(value)
  if isinstance(value, Mapping):
    return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
  if isinstance(value, (list, tuple)):
    return ", ".join(_text(item) for item in value)
  return str(value)


def _drawn(row: Found) -> dict[str, Any]:
  return {
    "label": row.quantity.label,
    "kind": row.quantity.kind,
    "value": row.value,
    "ci95": row.ci95,
  }


def _written(row: Found, digits: int = 3) -> dict[str, Any]:
  """A row of a table, with its numbers as text."""
  interval = "—"
  if row.ci95:
    interval = f"{number(row.ci95[0], digits)} to {number(row.ci95[1], digits)}"
  return {
    "label": row.quantity.label,
    "kind": row.quantity.kind,
    "definition": row.quantity.sentence,
    "value": number(row.value, digits),
    "ci95": row.ci95,
    "interval": interval,
    "n": "" if row.n is None else f"{row.n:,}",
    "shown": row.bounds[0] > 0,
  }


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
  """The numbers that belong beside the headline, those that were measured."""
  # The gap stands for both losses: each alone says how predictable the teacher writes.
  found = [quantities.loss_gap(metrics), *quantities.measured(metrics, "loss", "number")]
  return [
    {"name": one.quantity.label, "value": _large(one), "note": one.quantity.note}
    for one in found
    if one is not None and one.quantity.note
  ]


def _large(one: Found) -> str:
  if one.quantity.unit == "share":
    return f"{100 * one.value:.1f} %"
  return number(one.value, _DIGITS.get(one.quantity.unit, 3))
