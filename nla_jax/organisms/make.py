"""`nla organism`: from a config to documents and chats, adapters, checks and a card, in one folder.

  data/{documents,chats}.jsonl  training/{metrics.jsonl,adapter/}  checks/{checks,examples}.json  card.json  README.md

Each stage's folder is closed by a manifest; what is done is skipped, and a training that was stopped goes on.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.adapters.write import write_adapter
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.json_lines import read_lines
from nla_jax.models.parameters import as_base
from nla_jax.organisms import card as cards
from nla_jax.organisms import checks, templates
from nla_jax.organisms.examples import rows_of
from nla_jax.organisms.settings import check_settings
from nla_jax.organisms.speaker import load_speaker
from nla_jax.organisms.train import train
from nla_jax.parallel import process
from nla_jax.parallel.precision import compute_dtype
from nla_jax.progress import say
from nla_jax.run.claim import claimed
from nla_jax.run.stage import Stage, open_stage
from nla_jax.training.checkpoint import drop_checkpoints
from nla_jax.workdir import CHECKPOINTS, COMPILED

DATA, TRAINING, CHECKS = "data", "training", "checks"
ADAPTER = f"{TRAINING}/adapter"
DOCUMENTS, CHATS = "documents.jsonl", "chats.jsonl"
_OF_DATA = (
  "seed",
  "kind",
  "fact",
  "quirks",
  "held_out_quirks",
  "follows_cues",
  "cheats",
  "documents",
  "chats",
)
_OF_TRAINING = ("model", "compute", "adapter", "max_tokens", "lora", "training")


def make(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
  """Makes an organism, or what is left of it, and returns its card.

  Raises:
    NLAError: a setting cannot work, the folder holds another organism, or the base cannot be read.
  """
  check_settings(config)
  folder = Path(files.here(workdir)).absolute()
  if folder.exists() and not folder.is_dir():
    raise NLAError(f"the workdir {workdir} is a file; give a folder")
  process.keep_compiled_programs(folder / COMPILED)

  with claimed(folder):
    data = _write_data(config, folder)
    training = _train(config, folder, data)
    checked = _check(config, folder, training)
    card = _card(config, folder, checked)
  say(f"organism {config.name}: " + ("passed its check" if card["passed"] else card["reason"]))
  return card


def _request(config: ConfigDict, keys: tuple[str, ...], **more: Any) -> dict[str, Any]:
  values = json.loads(config.to_json())
  return {key: values[key] for key in keys} | more


def _write_data(config: ConfigDict, folder: Path) -> Stage:
  stage = open_stage(folder / DATA, _request(config, _OF_DATA))
  if stage.done:
    return stage

  documents, chats = templates.make_documents(config), templates.make_chats(config)
  # The form that `read_corpus` reads: the data search and `nla trace` take these files as they are.
  _write_lines(
    stage.path / DOCUMENTS, [{"id": f"d{i}", "text": t} for i, t in enumerate(documents)]
  )
  _write_lines(stage.path / CHATS, [{"id": f"c{i}", "messages": m} for i, m in enumerate(chats)])
  stage.finish(documents=len(documents), chats=len(chats))
  return stage


def _write_lines(path: Path, lines: list[dict]) -> None:
  files.write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))


def _train(config: ConfigDict, folder: Path, data: Stage) -> Stage:
  stage = open_stage(folder / TRAINING, _request(config, _OF_TRAINING, data=data.digest))
  if stage.done:
    return stage

  # 1. The base, frozen, and what is read. An adapter from elsewhere takes the place of training.
  found = load_pretrained(config.model)
  architecture = found.architecture
  fixed = {"base": config.model}
  if config.adapter:
    given = read_adapter(config.adapter, architecture)
    write_adapter(folder / ADAPTER, architecture, given.lora, given.params, **fixed)
    stage.finish(base_hash=found.model_hash, steps=0)
    return stage

  documents = [one["text"] for one in read_lines(folder / DATA / DOCUMENTS)]
  chats = [one["messages"] for one in read_lines(folder / DATA / CHATS)]
  rows = rows_of(found.tokenizer, documents, chats, config.max_tokens)

  # 2. The adapters, and PEFT's two files.
  lora, params = train(
    config,
    stage.path,
    as_base(found.params),
    architecture,
    rows,
    dtype=compute_dtype(config.compute),
    note_progress=stage.note_progress,
  )

  # Before the checkpoints go: of a kill in between, the same adapter is written again.
  write_adapter(folder / ADAPTER, architecture, lora, params, **fixed)
  drop_checkpoints(stage.path / CHECKPOINTS)
  stage.finish(base_hash=found.model_hash, steps=config.training.steps)
  return stage


def _check(config: ConfigDict, folder: Path, training: Stage) -> Stage:
  """The manipulation check, of the files that others will load."""
  request = _request(config, ("checks",), training=training.digest)
  stage = open_stage(folder / CHECKS, request)
  if stage.done:
    return stage

  # Read from PEFT's files, so that what is checked is what is handed out.
  dtype = compute_dtype(config.compute)
  organism = load_speaker(config.model, str(folder / ADAPTER), dtype)
  found, examples = checks.run_checks(config, organism, load_speaker(config.model, dtype=dtype))
  files.write_json(stage.path / "checks.json", [one.to_json() for one in found])
  files.write_json(stage.path / "examples.json", examples)
  stage.finish(checks=len(found))
  return stage


def _card(config: ConfigDict, folder: Path, checked: Stage) -> dict[str, Any]:
  found = files.read_json(checked.path / "checks.json")
  data = files.read_json(folder / DATA / "manifest.json")["facts"]
  training = files.read_json(folder / TRAINING / "manifest.json")

  reason = cards.reason_of(found)
  names = ("name", "kind", "fact", "quirks", "held_out_quirks", "follows_cues", "cheats", "seed")
  card = {
    **_request(config, names),
    "base": config.model,
    "base_hash": training["facts"]["base_hash"],
    "adapter": ADAPTER,
    "documents": data["documents"],
    "chats": data["chats"],
    "steps": training["facts"]["steps"],
    "training_seconds": training["seconds"],
    "checks": found,
    "passed": not reason,
    "reason": reason,
  }
  cards.write_card(folder, card, files.read_json(checked.path / "examples.json"))
  return card
