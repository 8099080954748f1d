"""report.html of a run, from what its stages left on disk."""

import json
import os

import jax

from nla_jax.evaluation.report import page
from nla_jax.parallel import distributed
from nla_jax.progress import read_metrics
from nla_jax.run.run import Run
from nla_jax.workdir import STAGES


def timing(run: Run) -> list[dict]:
  """Seconds of each finished stage, installation first where the launcher measured it."""
  installed = float(os.environ.get("NLA_INSTALL_SECONDS", 0))
  rows = [{"stage": "install", "seconds": installed}] if installed else []
  for name in STAGES:
    if (run.path(name) / "manifest.json").exists():
      rows.append({"stage": name, "seconds": run.parent(name).seconds})
  return rows


def write_run_report(run: Run) -> None:
  """report.html from what the stages left on disk."""
  if not distributed.is_first():
    return
  c, folder = run.config, run.path("eval")
  read = lambda name: json.loads((folder / name).read_text())
  facts = run.parent("extract").facts
  page.write_report(
    run.workdir / "report.html",
    {
      "title": c.name,
      "config": str(c),
      "run": {
        "model": c.model,
        "layer": c.layer,
        "corpus": c.corpus,
        "activations": facts["rows"],
        "documents": facts["documents"],
        "articles or groups": facts["groups"],
        "rows by split": ", ".join(f"{name} {n}" for name, n in facts["rows_by_split"].items()),
        "teacher": c.teacher.provider,
        "injection": f"{c.inject.mode}, {c.inject.map}, "
        f"α = {run.parent('sft').facts['injection_scale']:.1f}",
        "AV examples": run.parent("sft").facts["av_examples"],
        "AR examples": run.parent("sft").facts["ar_examples"],
        "RL samples": run.parent("rl").facts["samples"],
        "products in": str(run.dtype),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
      },
      "timing": timing(run),
      "metrics": read("metrics.json"),
      "rows": read("rows.json"),
      "examples": read("examples.json"),
      "curves": {
        "av_sft": read_metrics(run.path("sft") / "av"),
        "ar_sft": read_metrics(run.path("sft") / "ar"),
        "rl": read_metrics(run.path("rl")),
      },
    },
  )
