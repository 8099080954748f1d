"""`nla convert FROM TO`: between files of others and a store: the reference pipeline's parquet, npz and safetensors.

A folder that is converted to has the sub-folders of a run's workdir. With --config it is a workdir: the stages extract
and teach are closed, and `nla run` with the same config continues with SFT. Files of arrays hold no explanations, so
that `nla teach` comes first.
"""

import argparse
import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from nla_jax import files, workdir
from nla_jax.cli.command_line import Parser
from nla_jax.errors import NLAError
from nla_jax.interop.array_files import to_store as arrays_to_store
from nla_jax.interop.array_files.from_store import chosen_rows, write_rows
from nla_jax.interop.array_files.reader import ENDINGS
from nla_jax.interop.array_files.writer import check_target
from nla_jax.interop.reference_data import from_store, to_store
from nla_jax.progress import say

_FILES = (".parquet", *ENDINGS)

USAGE = """nla convert FILE.parquet [MORE.parquet …] FOLDER     to a store and explanations
       nla convert WORKDIR_OR_STORE FILE.parquet --kind=…   to one file
       nla convert WORKDIR_OR_STORE FOLDER                  to every file that the store can fill
       nla convert FILE.npz [MORE …] FOLDER                 arrays of activations to a store
       nla convert WORKDIR_OR_STORE FILE.npz                rows of a store to arrays; FILE.safetensors likewise"""


def _parse(arguments: list[str]) -> argparse.Namespace:
  parser = Parser(prog="nla convert", usage=USAGE, description=__doc__)
  parser.add_argument("source", nargs="+", metavar="FROM", help="files, or one store")
  parser.add_argument("target", metavar="TO", help="a folder, or one file")

  # To a store.
  parser.add_argument(
    "--model", help="the target, where the files do not name it or name it by another path"
  )
  parser.add_argument(
    "--texts",
    nargs="+",
    default=[],
    metavar="FILE",
    help="to a store: base files with the texts of the same documents",
  )
  parser.add_argument(
    "--held-out",
    type=float,
    default=0.1,
    help="to a store: share of documents to hold out (of the config where one is given)",
  )
  parser.add_argument("--seed", type=int, default=42, help="to a store: of the splits (likewise)")
  parser.add_argument(
    "--config",
    help="to a store: makes FOLDER a workdir of this config, so that `nla run` continues",
  )

  parser.add_argument(
    "--layer", type=int, help="arrays to a store: the block, from 0, where the files do not name it"
  )

  # To arrays.
  parser.add_argument(
    "--split", help="to arrays: rows of this split (held_out, av_sft, ar_sft, rl)"
  )
  parser.add_argument("--rows", metavar="A:B", help="to arrays: of these, rows A to B - 1")

  # To parquet files.
  parser.add_argument(
    "--kind", default="base", choices=from_store.KINDS, help="to one file: which rows"
  )
  parser.add_argument(
    "--no-texts", action="store_true", help="to av_sft, ar_sft, rl: leave the texts out"
  )
  return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError for what a person can mend."""
  options = _parse(arguments)
  options.source, options.texts = (
    [files.here(one) for one in paths] for paths in (options.source, options.texts)
  )
  options.target = files.here(options.target)
  endings = [Path(path).suffix for path in options.source]
  for path, ending in zip(options.source, endings, strict=True):
    if ending not in _FILES and Path(path).is_file():
      raise NLAError(
        f"{path} is a file and none of {', '.join(_FILES)}: give parquet files of the reference pipeline, arrays of "
        "activations with their documents, or a store"
      )
  if not set(endings) & set(_FILES):
    _from_store(options)
    return 0

  strange = [p for p, ending in zip(options.source, endings, strict=True) if ending != endings[0]]
  if strange and not set(endings) <= set(ENDINGS):
    raise NLAError(
      f"cannot convert {options.source[0]} and {strange[0]} at once: give parquet files, arrays, or one store"
    )
  _to_store(options)
  return 0


def _from_store(options: argparse.Namespace) -> None:
  """Writes arrays or parquet files of one store."""
  if len(options.source) > 1:
    raise NLAError(
      f"{len(options.source)} stores were given ({shlex.join(options.source)}): convert one at a time"
    )
  if Path(options.target).suffix not in ENDINGS:
    _to_parquet(options)
    return

  check_target(options.target)
  source = from_store.open_source(options.source[0], options.model)
  rows = chosen_rows(source.store, options.split, options.rows)
  n = write_rows(source.store, options.target, rows, source.model)
  say(f"convert: {n} rows in {options.target}")


def _to_store(options: argparse.Namespace) -> None:
  if Path(options.target).suffix in _FILES:
    raise NLAError(f"{options.target} names a file, but files are converted to a folder: name that")
  if options.config is not None:
    facts = _to_workdir(options)
  else:
    with _claimed(options.target):
      facts = _convert(options, options.model, options.held_out, options.seed)

  splits = ", ".join(f"{name} {n}" for name, n in facts["rows_by_split"].items())
  say(
    f"convert: {facts['rows']} rows of {facts['documents']} documents, {facts['explanations']} explained, in "
    f"{options.target}; by split: {splits}"
  )


def _convert(options: argparse.Namespace, model: str | None, held_out: float, seed: int) -> dict:
  """Writes the store, and the explanations where the files have some."""
  settings = {"model": model, "held_out": held_out, "seed": seed}
  if not _is_arrays(options):
    return to_store.to_store(options.source, options.target, texts_from=options.texts, **settings)
  if options.texts:
    raise NLAError("--texts goes with parquet files: arrays bring the tokens of their documents")
  return arrays_to_store.to_store(options.source, options.target, layer=options.layer, **settings)


def _is_arrays(options: argparse.Namespace) -> bool:
  return Path(options.source[0]).suffix in ENDINGS


@contextlib.contextmanager
def _claimed(folder: str) -> Iterator[None]:
  """Holds a folder while it is written, as a run holds its workdir. Raises NLAError where another process does."""
  # Imported here: what a run needs takes seconds to import.
  from nla_jax.run.claim import claimed

  path = Path(folder)
  if path.is_file():
    raise NLAError(f"{folder} is a file, and a folder is written: name another")
  with claimed(path):
    try:
      yield
    except BaseException:
      # What is refused leaves nothing behind: the lock goes while it is held, and the folder where it held no more.
      if {one.name for one in path.iterdir()} <= {workdir.LOCK, workdir.OWNER}:
        (path / workdir.LOCK).unlink()
        (path / workdir.OWNER).unlink()
        path.rmdir()
      raise


def _to_workdir(options: argparse.Namespace) -> dict:
  """Converts into the workdir of a config and closes its extract stage, and teach where everything is explained."""
  # Imported here: a conversion without a config needs no run.
  from nla_jax.config import load_config
  from nla_jax.interop.reference_data.reader import DataFile
  from nla_jax.run.run import begin

  # 1. The config and the files are of one layer.
  config = load_config(options.config)
  if _is_arrays(options):
    layer = arrays_to_store.layer_of(options.source) if options.layer is None else options.layer
    layer = options.layer = config.layer if layer is None else layer
  else:
    layer = DataFile(options.source[0]).sidecar.layer_index
  if config.layer != layer:
    raise NLAError(
      f"{options.config} is for layer {config.layer}, {options.source[0]} holds layer {layer}: "
      f"set config.layer = {layer} in a copy of the config"
    )

  with begin(config, options.target) as run:
    return _close_stages(options, run)


def _close_stages(options: argparse.Namespace, run) -> dict:
  # 1. The store, as what `extract` would have made.
  stage = run.open("extract")
  model = options.model or run.config.model
  facts = _convert(options, model, run.config.data.held_out, run.config.seed)
  if not stage.done:
    stage.finish(**facts)

  # 2. The explanations, as what `teach` would have made. Held-out rows without one could not be evaluated.
  teach = run.open("teach")
  texts = from_store.open_source(options.target).texts
  unexplained = [row for row in run.store.rows("held_out").tolist() if row not in texts]
  if unexplained:
    say(
      f"convert: {len(unexplained)} held-out rows have no explanation, so the stage teach stays open: "
      "`nla teach` with config.teacher.provider=file can fill it"
    )
  elif not teach.done:
    teach.finish(explanations=facts["explanations"])
  return facts


def _to_parquet(options: argparse.Namespace) -> None:
  source = from_store.open_source(options.source[0], options.model)
  target = Path(options.target)

  # A folder gets every kind of file that the store has rows for.
  if target.suffix == ".parquet":
    kinds = {options.kind: target}
  else:
    filled = [kind for kind in from_store.KINDS if len(from_store.rows_of(source, kind))]
    kinds = {kind: target / f"{_file_name(kind)}.parquet" for kind in filled}

  # Files of several kinds may be written into one folder at once, each by its own name.
  with contextlib.nullcontext() if target.suffix == ".parquet" else _claimed(options.target):
    _write_files(source, kinds, options)


def _write_files(source, kinds: dict[str, Path], options: argparse.Namespace) -> None:
  for kind, path in kinds.items():
    n = from_store.to_parquet(source, path, kind, texts=not options.no_texts)
    say(f"convert: {n} rows in {path}")


def _file_name(kind: str) -> str:
  # The reference pipeline's own name of this file.
  return "base_explained" if kind == "explained" else kind
