"""`nla inspect PATH`: what a model, an AV or AR, a workdir, an activation store, a GGUF or a parquet file is.

Only headers, manifests and sidecars are read, never a weight.
"""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa

from nla_jax.data import explanations
from nla_jax.data.store import layout
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.find import cached_directory, locate
from nla_jax.interop.describe_models import (
  Description,
  describe_gguf,
  describe_model,
  is_model,
  size_in_words,
)
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.reference_data.reader import ACTIVATION, DataFile, open_parquet
from nla_jax.workdir import FOLDERS, STAGES, STORE, TEXTS


def describe(name: str | Path) -> Description:
  """What lies at a path, in `package:NAME`, or in the hub's cache under a hub id.

  Raises:
    NLAError: there is nothing, or nothing that is known.
  """
  # A name that means no model may still be a parquet file's.
  path = locate(str(name)).path or Path(name).expanduser()
  if not path.exists():
    path = cached_directory(str(name))
    if path is None:
      raise NLAError(
        f"there is nothing at {name}; give a folder, a .gguf or .parquet file, package:NAME, or a hub id "
        "that `hf download` has fetched"
      )
  if path.is_file():
    kinds = {".gguf": describe_gguf, ".parquet": describe_parquet}
    if path.suffix not in kinds:
      raise NLAError(
        f"{name} is a {path.suffix or 'plain'} file; give a folder, a .gguf or a .parquet file"
      )
    return kinds[path.suffix](path)
  if (path / sidecar.MODEL_FILE).is_file() or is_model(path):
    return describe_model(path)
  if (path / layout.LAYOUT).is_file():
    return describe_store(path)
  if (path / explanations.TABLE).is_file():
    return describe_explanations(path)
  if _run_config(path) is not None or (path / STORE / layout.LAYOUT).is_file():
    return describe_workdir(path)
  if all((path / role).is_dir() for role in ("av", "ar")):
    return Description(
      str(path),
      "an exported pair",
      parts=[describe_model(path / "av"), describe_model(path / "ar")],
    )
  if (path / "config.json").is_file() or list(path.glob("*.safetensors")):
    return describe_model(path)
  files = sorted(path.glob("*.parquet"))
  if files:
    return Description(
      str(path),
      f"a folder of {len(files)} parquet file(s)",
      parts=list(map(describe_parquet, files)),
    )
  raise NLAError(
    f"{name} holds no model, AV, AR, workdir, activation store or parquet file; give the folder that does"
  )


def describe_parquet(path: Path) -> Description:
  """A parquet file of the reference pipeline, or another."""
  found = Description(str(path), "a parquet file")
  with found.noting():
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
    found.kind = "a parquet file with activations"
    data = DataFile(path)
    side = data.sidecar
    found.kind = f"NLA data of stage {side.stage}" + (
      ", explained" * (side.stage == "base" and data.has_explanations)
    )
    found.facts |= {
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
    kind, d = schema.field(ACTIVATION).type, side.d_model
    if not pa.types.is_fixed_size_list(kind):
      found.missing.append(
        f"{ACTIVATION} is {_type(kind)}: it is read here, but plain lists overflow past 4 GiB "
        "elsewhere; convert it to a store and back"
      )
    elif kind.list_size != d:
      found.missing.append(
        f"{ACTIVATION} is {kind.list_size} wide, the sidecar says {d}: they do not belong together"
      )
    if not data.has_texts:
      found.missing.append(
        "the texts (detokenized_text_truncated): to convert it, give the base file with --texts"
      )
  return found


def describe_store(path: Path) -> Description:
  """An activation store, finished or not."""
  found = Description(str(path), "an activation store")
  shape = json.loads((path / layout.LAYOUT).read_text())
  shards = -(-shape["n_rows"] // shape["shard_rows"])
  vectors = shape["arrays"]["activations"]
  found.facts |= {
    "rows": shape["n_rows"],
    "d_model": vectors["shape"][-1],
    "dtype": vectors["dtype"],
    "arrays": ", ".join(shape["arrays"]),
    "shards": f"{shards} of {layout['shard_rows']} rows",
    "size": size_in_words(sum(file.stat().st_size for file in path.rglob("*") if file.is_file())),
  }
  found.facts |= {f"made from {name}": value for name, value in shape["made_from"].items()}
  with found.noting():
    store = Store(str(path))
    documents = store.documents
    rows = Counter(documents.splits[i] for i in store.read("document", slice(None)).tolist())
    found.facts |= {
      "layer": store.manifest.get("layer"),
      "documents": len(documents),
      "groups": len(set(documents.groups)),
      "rows by split": ", ".join(f"{split} {n}" for split, n in sorted(rows.items())),
      "converted from": store.manifest.get("converted", {}).get("files"),
    }
    if "held_out" not in rows:
      found.missing.append("a held-out split: nothing can be reported on this store")
  return found


def describe_explanations(path: Path) -> Description:
  """A folder of explanations."""
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
  """A workdir of `nla run`, or a folder that `nla convert` wrote."""
  config = _run_config(path)
  if config is None:
    found = Description(str(path), "a folder written by nla convert")
  else:
    found = Description(
      str(path),
      "a workdir of nla run",
      {
        "config": f"{config['name']}, preset {config['preset']}",
        "model": config["model"],
        "layer": config["layer"],
        "corpus": config["corpus"],
        "teacher": config["teacher"]["provider"],
      },
    )
    for stage in STAGES:
      folder = path / FOLDERS[stage]
      if (folder / "manifest.json").is_file():
        manifest = json.loads((folder / "manifest.json").read_text())
        facts = ", ".join(
          f"{name} {value}"
          for name, value in manifest["facts"].items()
          if not isinstance(value, dict)
        )
        found.facts[f"stage {stage}"] = f"done in {manifest['seconds']:.0f} s" + (
          f": {facts}" if facts else ""
        )
      else:
        begun = (folder / "request.json").is_file()
        found.facts[f"stage {stage}"] = "begun" if begun else "not begun"
        found.missing.append(
          f"stage {stage} is {'unfinished' if begun else 'not begun'}: `nla {stage}` with the same "
          "--config and --workdir makes it"
        )
    metrics = path / "eval" / "metrics.json"
    if metrics.is_file():
      numbers = json.loads(metrics.read_text())
      found.facts |= {f"FVE {name}": _estimate(value) for name, value in numbers["fve"].items()}
      found.facts |= {
        f"control {name}": _estimate(value) for name, value in numbers["controls"].items()
      }
  parts = [
    (STORE / layout.LAYOUT, STORE, describe_store),
    (TEXTS / layout.MANIFEST, TEXTS, describe_explanations),
  ]
  parts += [
    (Path("hf") / role / sidecar.MODEL_FILE, Path("hf") / role, describe_model)
    for role in ("av", "ar")
  ]
  found.parts = [
    function(path / folder) for sign, folder, function in parts if (path / sign).is_file()
  ]
  return found


def _run_config(path: Path) -> dict | None:
  try:
    config = json.loads((path / "config.json").read_text())
  except (OSError, ValueError):
    return None
  return (
    config
    if isinstance(config, dict) and {"model", "layer", "rl", "teacher"} <= config.keys()
    else None
  )


def _estimate(found: dict) -> str:
  return (
    f"{found['value']:.3f} [{found['ci95'][0]:.3f}, {found['ci95'][1]:.3f}] over {found['n']} rows"
  )


def _type(kind: pa.DataType) -> str:
  return str(kind).replace("element: ", "").replace("item: ", "").replace("child 0, ", "")


def text(found: Description, indent: str = "") -> str:
  """Lines to print; templates and other long values on lines of their own."""
  lines = [f"{indent}{found.path}: {found.kind}"]
  width = max(map(len, found.facts), default=0)
  for name, value in found.facts.items():
    if value is None or value == "":
      continue
    value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
    first, *rest = str(value).splitlines() or [""]
    lines.append(f"{indent}  {name:<{width}}  {first}")
    lines += [f"{indent}  {'':<{width}}  {line}".rstrip() for line in rest]
  lines += [f"{indent}  missing: {line}" for line in found.missing]
  if not found.missing:
    lines.append(f"{indent}  nothing is missing")
  return "\n".join([*lines, *(text(part, indent + "  ") for part in found.parts)])
