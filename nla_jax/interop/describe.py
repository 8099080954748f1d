"""`nla inspect PATH`: what a model, an AV or AR, a workdir, an activation store, a GGUF or a parquet file is.

Only headers, manifests, sidecars and the head of an AR are read, no other weight.
"""

import functools
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa

from nla_jax.data import explanations
from nla_jax.data.positions import HELD_OUT
from nla_jax.data.store import layout
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.files import here
from nla_jax.interop.base_models.find import cached_directory, locate
from nla_jax.interop.describe_gguf import describe_gguf
from nla_jax.interop.describe_models import (
  Description,
  describe_model,
  is_model,
  size_in_words,
)
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.reference_data.reader import ACTIVATION, DataFile, open_parquet
from nla_jax.workdir import CONFIG, FOLDERS, MANIFEST, METRICS, REQUEST, STAGES, STORE, TEXTS

_ROLES = ("av", "ar")


def describe(name: str | Path, chat_template: str = "") -> Description:
  """Describes what lies at a path, in `package:NAME`, or in the hub's cache under a hub id.

  Args:
    name: what a person calls it.
    chat_template: of a model, in place of its tokenizer's; as `config.prompts.chat_template`.

  Raises:
    NLAError: there is nothing, or nothing that is known.
  """
  # A name that means no model may still be a parquet file's.
  path = locate(str(name)).path or Path(here(name))
  if not path.exists():
    # No such path, so it may be a hub id; nothing is fetched here.
    path = cached_directory(str(name))
    if path is None:
      raise NLAError(
        f"there is nothing at {name}; give a folder, a .gguf or .parquet file, package:NAME, or a hub id "
        "that `hf download` has fetched"
      )

  function = _describe_file if path.is_file() else _describe_folder
  return function(path, name, chat_template)


def _describe_file(path: Path, name: str | Path, chat_template: str) -> Description:
  """Describes a file; `name` is what the person called it."""
  of_gguf = functools.partial(describe_gguf, chat_template=chat_template)
  kinds = {".gguf": of_gguf, ".parquet": describe_parquet}
  if path.suffix not in kinds:
    raise NLAError(
      f"{name} is a {path.suffix or 'plain'} file; give a folder, a .gguf or a .parquet file"
    )
  return kinds[path.suffix](path)


def _describe_folder(path: Path, name: str | Path, chat_template: str) -> Description:
  """Describes a folder; `name` is what the person called it."""
  # The surest sign first: an AV's folder is a model's, too, and a workdir holds a config.json as a model does.
  if (path / sidecar.MODEL_FILE).is_file() or is_model(path):
    return describe_model(path, chat_template)
  if (path / layout.LAYOUT).is_file():
    return describe_store(path)
  if (path / explanations.TABLE).is_file():
    return describe_explanations(path)
  if _run_config(path) is not None or (path / STORE / layout.LAYOUT).is_file():
    return describe_workdir(path)

  # Two folders of these names may hold a pair that was cut: each says itself what it lacks.
  if all((path / role).is_dir() for role in _ROLES):
    parts = [describe_model(path / role, chat_template) for role in _ROLES]
    return Description(str(path), "an exported pair", parts=parts)
  if (path / "config.json").is_file() or list(path.glob("*.safetensors")):
    return describe_model(path)

  files = sorted(path.glob("*.parquet"))
  if files:
    kind = f"a folder of {len(files)} parquet file(s)"
    return Description(str(path), kind, parts=list(map(describe_parquet, files)))

  raise NLAError(
    f"{name} holds no model, AV, AR, workdir, activation store or parquet file; give the folder that does"
  )


def describe_parquet(path: Path) -> Description:
  """Describes a parquet file of the reference pipeline, or another."""
  found = Description(str(path), "a parquet file")
  with found.noting():
    # The footer alone, which every parquet file has.
    file = open_parquet(path)
    metadata, schema = file.metadata, file.schema_arrow
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    found.facts |= {
      "rows": metadata.num_rows,
      "size": size_in_words(path.stat().st_size),
      "row groups": f"{len(sizes)} of at most {max(sizes, default=0)} rows",
      "columns": ", ".join(f"{field.name} {_type(field.type)}" for field in schema),
    }
    if ACTIVATION not in schema.names:
      found.kind += " without activations"
      return found

    # Kept where opening fails, so that a file whose sidecar is missing is not called an ordinary one.
    found.kind = "a parquet file with activations"
    data = DataFile(path)
    found.kind = f"NLA data of stage {data.sidecar.stage}"
    if data.sidecar.stage == "base" and data.has_explanations:
      found.kind += ", explained"
    found.facts |= _of_data(data)
    found.missing += _faults(data, schema.field(ACTIVATION).type)
  return found


def _of_data(data: DataFile) -> dict[str, object]:
  """Returns what the sidecar says."""
  side = data.sidecar
  return {
    "base model": side.base_model,
    "d_model": side.d_model,
    "layer": f"{side.layer_index} (output of this block, 0-based)",
    "corpus": side.corpus,
    "positions a document": side.positions_per_doc,
    "texts": data.has_texts,
    "explanations": data.has_explanations,
    "teacher": (side.api_summaries or {}).get("model"),
    "AV template": side.av_template,
    "AR template": side.ar_template,
    "made": " by ".join(filter(None, (side.created_at, side.created_by))),
  }


def _faults(data: DataFile, kind: pa.DataType) -> list[str]:
  """Returns what is wrong or absent; `kind` is the type of the activations' column."""
  faults, d = [], data.sidecar.d_model
  if not pa.types.is_fixed_size_list(kind):
    faults.append(
      f"{ACTIVATION} is {_type(kind)}: it is read here, but plain lists overflow past 4 GiB "
      "elsewhere; convert it to a store and back"
    )
  elif kind.list_size != d:
    faults.append(
      f"{ACTIVATION} is {kind.list_size} wide, the sidecar says {d}: they do not belong together"
    )
  if not data.has_texts:
    faults.append(
      "the texts (detokenized_text_truncated): to convert it, give the base file with --texts"
    )
  return faults


def describe_store(path: Path) -> Description:
  """Describes an activation store, finished or not."""
  found = Description(str(path), "an activation store")

  # The layout is written first, so it is there in an interrupted store, too.
  shape = json.loads((path / layout.LAYOUT).read_text())
  shards = -(-shape["n_rows"] // shape["shard_rows"])
  activations = shape["arrays"]["activations"]
  found.facts |= {
    "rows": shape["n_rows"],
    "d_model": activations["shape"][-1],
    "dtype": activations["dtype"],
    "arrays": ", ".join(shape["arrays"]),
    "shards": f"{shards} of {shape['shard_rows']} rows",
    "size": size_in_words(sum(file.stat().st_size for file in path.rglob("*") if file.is_file())),
  }
  found.facts |= {f"made from {name}": value for name, value in shape["made_from"].items()}

  # What only a finished store knows; of another, a line says what it lacks.
  with found.noting():
    store = Store(str(path))
    documents = store.documents

    # A column of N numbers, not the activations.
    rows = Counter(documents.splits[i] for i in store.read("document", slice(None)).tolist())
    found.facts |= {
      "layer": store.manifest.get("layer"),
      "documents": len(documents),
      "groups": len(set(documents.groups)),
      "rows by split": ", ".join(f"{split} {n}" for split, n in sorted(rows.items())),
      "converted from": store.manifest.get("converted", {}).get("files"),
    }

    if HELD_OUT not in rows:
      found.missing.append("a held-out split: nothing can be reported on this store")
  return found


def describe_explanations(path: Path) -> Description:
  """Describes a folder of explanations."""
  found = Description(str(path), "explanations of an activation store's rows")
  with found.noting():
    texts = explanations.read_explanations(str(path))

    words = sorted(len(text.split()) for text in texts.values())
    found.facts |= {
      "explanations": len(texts),
      "words": f"{words[len(words) // 2]} in the median, {words[-1]} at most",
    }
  return found


def describe_workdir(path: Path) -> Description:
  """Describes a workdir of `nla run`, or a folder that `nla convert` wrote."""
  config = _run_config(path)
  if config is None:
    found = Description(str(path), "a folder written by nla convert")
  else:
    found = Description(str(path), "a workdir of nla run", _of_config(config))
    for stage in STAGES:
      _describe_stage(found, path, stage)
    found.facts |= _of_metrics(path / FOLDERS["eval"] / METRICS)

  # A part is described where the file is there that makes it one.
  parts = [
    (STORE / layout.LAYOUT, STORE, describe_store),
    (TEXTS / layout.MANIFEST, TEXTS, describe_explanations),
  ]
  for role in _ROLES:
    folder = Path(FOLDERS["export"]) / role
    parts.append((folder / sidecar.MODEL_FILE, folder, describe_model))
  found.parts = [
    function(path / folder) for sign, folder, function in parts if (path / sign).is_file()
  ]
  return found


def _describe_stage(found: Description, path: Path, stage: str) -> None:
  """Adds whether a stage of the workdir `path` is done, and what is to be done where it is not."""
  folder, fact = path / FOLDERS[stage], f"stage {stage}"
  if (folder / MANIFEST).is_file():
    manifest = json.loads((folder / MANIFEST).read_text())
    found.facts[fact] = f"done in {manifest['seconds']:.0f} s"

    # Counts by split and the like are too long for the line.
    plain = {k: v for k, v in manifest["facts"].items() if not isinstance(v, dict)}
    if plain:
      found.facts[fact] += ": " + ", ".join(f"{name} {value}" for name, value in plain.items())
    return

  # The request is written when a stage begins, the manifest when it ends.
  begun = (folder / REQUEST).is_file()
  found.facts[fact] = "begun" if begun else "not begun"
  found.missing.append(
    f"stage {stage} is {'unfinished' if begun else 'not begun'}: `nla {stage}` with the same "
    "--config and --workdir makes it"
  )


def _of_config(config: dict) -> dict[str, object]:
  """Returns what a run's config says of it."""
  return {
    "config": f"{config['name']}, preset {config['preset']}",
    "model": config["model"],
    "layer": config["layer"],
    "corpus": config["corpus"],
    "teacher": config["teacher"]["provider"],
  }


def _of_metrics(path: Path) -> dict[str, str]:
  """Returns what the evaluation found; nothing where it is not done."""
  if not path.is_file():
    return {}

  numbers = json.loads(path.read_text())
  found = {f"FVE {name}": _estimate(value) for name, value in numbers["fve"].items()}
  found |= {f"control {name}": _estimate(value) for name, value in numbers["controls"].items()}
  return found


def _run_config(path: Path) -> dict | None:
  """Returns the config of a run's workdir, None where the folder is no workdir."""
  try:
    config = json.loads((path / CONFIG).read_text())
  except (OSError, ValueError):
    return None

  # A Hugging Face model has a config.json, too; these keys are only in a run's.
  is_run = isinstance(config, dict) and {"model", "layer", "rl", "teacher"} <= config.keys()
  return config if is_run else None


def _estimate(found: dict) -> str:
  low, high = found["ci95"]
  return f"{found['value']:.3f} [{low:.3f}, {high:.3f}] over {found['n']} rows"


def _type(kind: pa.DataType) -> str:
  # Arrow names the child of a list by who wrote the file; the name says nothing to a reader.
  return str(kind).replace("element: ", "").replace("item: ", "").replace("child 0, ", "")


def text(found: Description, indent: str = "") -> str:
  """Returns the lines to print; templates and other long values stand on lines of their own.

  Args:
    found: what was described.
    indent: before every line.
  """
  lines = [f"{indent}{found.path}: {found.kind}"]
  width = max(map(len, found.facts), default=0)
  for name, value in found.facts.items():
    if value is None or value == "":
      continue
    if isinstance(value, bool):
      value = "yes" if value else "no"

    # A template's lines stand under each other, in the column of the values.
    first, *rest = str(value).splitlines() or [""]
    lines.append(f"{indent}  {name:<{width}}  {first}")
    lines += [f"{indent}  {'':<{width}}  {line}".rstrip() for line in rest]

  lines += [f"{indent}  missing: {line}" for line in found.missing]
  if not found.missing:
    lines.append(f"{indent}  nothing is missing")
  return "\n".join([*lines, *(text(part, indent + "  ") for part in found.parts)])
