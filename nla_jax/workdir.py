"""The layout of a workdir: what lies where in the folder of a run. The one place that names its files.

A workdir's config.json says which layout it has (`FORMAT`) and which version made it; one of another layout is refused.

  config.json  report.html  compiled/  lock  owner.json (while a run is at work)
  activations/store   explanations/texts   sft/{av,ar}/params   rl/{av,ar}/params   rl/snapshots/STEP/{av,ar}/params
  eval/{metrics,rows,examples}.json, eval/{suites,fits}/   hf/{av,ar}

While the store is made, the corpus lies beside it in activations/tokens, in blocks.
Each stage's folder also holds `request.json` (what it is made from) and, once it is done, `manifest.json`.
"""

from pathlib import Path
from typing import Any

from nla_jax import files
from nla_jax.bucket import Place
from nla_jax.errors import NLAError
from nla_jax.version import VERSION

# Format 1 is that of nla_jax 0.1, whose config.json does not say so and has other names of keys and metrics.
FORMAT = 2
# In config.json, beside the config's own keys.
FORMAT_KEY, VERSION_KEY = "workdir_format", "nla_jax_version"

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
LOCK, OWNER = "lock", "owner.json"
MANIFEST, REQUEST, SECONDS = "manifest.json", "request.json", "seconds.json"
PROMPTS = "prompts.json"  # of SFT: the ids that it trains with, from its first step on
STORE, TEXTS = Path(FOLDERS["extract"]) / "store", Path(FOLDERS["teach"]) / "texts"
TOKENS = "tokens"  # of the extraction, beside the store: the corpus in blocks, while it is at work
PARAMS, CHECKPOINTS = "params", "checkpoints"
MAGNITUDE = "magnitude.json"  # of the evaluation: the head that says how large an activation is
METRICS, ROWS, EXAMPLES = "metrics.json", "rows.json", "examples.json"
JOURNAL = "journal.jsonl"  # of what a teacher that is a language model was asked
SUITES = "suites"  # of the evaluation: a file for each suite that has answered its question
FITS = "fits"  # of the evaluation: what its baselines fitted on training rows
SNAPSHOTS = "snapshots"  # of RL: a folder for each step whose parameters were kept
OVER_TRAINING = "over_training"  # of the evaluation: a file for each of these steps
CURVE, SAMPLES = "metrics.jsonl", "samples.jsonl"


def params_of(folder: Place, model: str) -> Place:
  """The folder of a finished model's parameters; `folder` is of the stage `sft` or `rl`, `model` is av or ar."""
  return folder / model / PARAMS


def snapshot_of(folder: Place, step: int) -> Place:
  """The folder of what RL had learned after a step, laid out as the stage's own; `folder` is of the stage."""
  return folder / SNAPSHOTS / f"{step:06d}"


def write_config(folder: Place, config: dict) -> None:
  """Writes a run's config.json: the config's keys, the workdir's format and the version that makes it."""
  # One file, so that there is no moment at which a workdir has a config and no format.
  header = {FORMAT_KEY: FORMAT, VERSION_KEY: VERSION}
  files.write_json(folder / CONFIG, {**config, **header})


def read_config(file: Place) -> dict | None:
  """The config in a workdir's config.json as plain values; None where there is no file.

  Raises:
    NLAError: another version of nla_jax made the workdir, and its layout is not this one's.
  """
  found = files.read_json(file)
  if found is None:
    return None

  complaint = wrong_format(file, found)
  if complaint:
    raise NLAError(complaint)
  return {key: value for key, value in found.items() if key not in (FORMAT_KEY, VERSION_KEY)}


def is_run_config(found: Any) -> bool:
  """Whether the content of a config.json is a run's config, of any version, and not a language model's."""
  return isinstance(found, dict) and {"model", "layer", "rl", "teacher"} <= found.keys()


def wrong_format(file: Place, found: dict) -> str | None:
  """Why a config.json is not of a workdir with this layout, in a line that says what to do; None where it is.

  Args:
    file: the config.json.
    found: its content.
  """
  if not is_run_config(found):
    return f"{file} is not the config of a run: give another --workdir"
  if found.get(FORMAT_KEY) == FORMAT:
    return None

  # The first version did not say which it was.
  version = found.get(VERSION_KEY, "0.1.0")
  return (
    f"{file.parent} was made by nla_jax {version}, and {VERSION} does not read that layout of a workdir: "
    f"install {version} to continue there, or give another --workdir; what it exported still loads with "
    f'nla_jax.load("{file.parent / FOLDERS["export"]}")'
  )
