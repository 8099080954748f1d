"""The report of a run, from what its stages left on disk."""

import os
from typing import Any

import jax

from nla_jax import files
from nla_jax.bucket import Place
from nla_jax.evaluation.report import page
from nla_jax.parallel import distributed
from nla_jax.progress import read_metrics
from nla_jax.run.facts import Reinforced
from nla_jax.run.passes import described
from nla_jax.run.run import Run
from nla_jax.workdir import EXAMPLES, MANIFEST, METRICS, OVER_TRAINING, REPORT, ROWS, STAGES


def timing(run: Run) -> list[dict]:
  """Seconds of each finished stage, installation first where the launcher measured it."""
  installed = float(os.environ.get("NLA_INSTALL_SECONDS", 0))
  rows = [{"stage": "install", "seconds": installed}] if installed else []

  # A stage without a manifest was not finished, and its seconds are not all.
  for name in STAGES:
    if files.exists(run.path(name) / MANIFEST):
      rows.append({"stage": name, "seconds": run.parent(name).seconds})
  return rows


def write_run_report(run: Run) -> None:
  """Writes report.html from what the stages left on disk; only the first process does."""
  if not distributed.is_first():
    return

  folder = run.path("eval")
  # Each model logs where it was trained.
  curves = {
    "av_sft": run.path("sft") / "av",
    "ar_sft": run.path("sft") / "ar",
    "rl": run.path("rl"),
  }
  page.write_report(
    run.workdir / REPORT,
    {
      "title": run.config.name,
      "config": str(run.config),
      "run": _description(run),
      "timing": timing(run),
      "metrics": files.read_json(folder / METRICS),
      "rows": files.read_json(folder / ROWS),
      "examples": files.read_json(folder / EXAMPLES),
      "over_training": _points(folder / OVER_TRAINING),
      "curves": {name: read_metrics(path) for name, path in curves.items()},
    },
  )


def _points(folder: Place) -> list[dict[str, Any]]:
  """What was measured of each kept step of RL, by step; empty where nothing was."""
  if not folder.exists():
    return []
  names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".json"))
  return [files.read_json(folder / name) for name in names]


def _evaluated(run: Run) -> str:
  """How many held-out activations were evaluated, and how many were asked for where these are more."""
  found, asked = files.read_json(run.path("eval") / METRICS)["rows"], run.config.evaluation.rows
  fewer = f", fewer than the {asked:,} asked for" if found < asked else ""
  return f"{found:,} activations{fewer}"


def _rl_passes(reinforced: Reinforced) -> dict[str, str]:
  """What RL explained, for the description; nothing of a run that did not say it."""
  seen = described(reinforced.activations, reinforced.rows)
  return {"RL activations": seen} if reinforced.rows else {}


def _description(run: Run) -> dict[str, Any]:
  """What was run, as facts with names that people read."""
  c, extracted, supervised, reinforced = run.config, run.extracted, run.supervised, run.reinforced
  splits = ", ".join(f"{name} {n}" for name, n in extracted.rows_by_split.items())

  # α is a fact of the run, not of its config, which may leave it to the data.
  injection = f"{c.inject.mode}, {c.inject.map}, α = {supervised.injection_scale:.1f}"
  return {
    "model": c.model,
    "layer": c.layer,
    "corpus": c.corpus,
    "activations": extracted.rows,
    "documents": extracted.documents,
    "articles or groups": extracted.groups,
    "rows by split": splits,
    **({"left out": "; ".join(extracted.notes)} if extracted.notes else {}),
    "evaluated": _evaluated(run),
    "teacher": c.teacher.provider,
    "injection": injection,
    "AV examples": described(supervised.av_examples, supervised.av_rows),
    "AR examples": described(supervised.ar_examples, supervised.ar_rows),
    "RL samples": reinforced.samples,
    **_rl_passes(reinforced),
    "products in": str(run.dtype),
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
  }
