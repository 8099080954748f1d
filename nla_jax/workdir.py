"""The layout of a workdir: what lies where in the folder of a run. The one place that names its files.

  config.json  report.html  compiled/
  activations/store   explanations/texts   sft/{av,ar}/params   rl/{av,ar}/params
  eval/{metrics,rows,examples}.json   hf/{av,ar}

Each stage's folder also holds `request.json` (what it is made from) and, once it is done, `manifest.json`.
"""

from pathlib import Path

STAGES = ("extract", "teach", "sft", "rl", "eval", "export")
FOLDERS = {
  "extract": "activations",
  "teach": "explanations",
  "sft": "sft",
  "rl": "rl",
  "eval": "eval",
  "export": "hf",
}
CONFIG, REPORT, COMPILED = "config.json", "report.html", "compiled"
MANIFEST, REQUEST, SECONDS = "manifest.json", "request.json", "seconds.json"
STORE, TEXTS = Path(FOLDERS["extract"]) / "store", Path(FOLDERS["teach"]) / "texts"
PARAMS, CHECKPOINTS = "params", "checkpoints"
METRICS, ROWS, EXAMPLES = "metrics.json", "rows.json", "examples.json"
CURVE, SAMPLES = "metrics.jsonl", "samples.jsonl"


def params_of(folder: Path, model: str) -> Path:
  """The folder of a finished model's parameters; `folder` is of the stage `sft` or `rl`, `model` is av or ar."""
  return folder / model / PARAMS
