"""`nla convert FROM TO`: between the reference pipeline's parquet files and a store with its explanations.

A folder that is converted to has the sub-folders of a run's workdir. With --config it is a workdir: the stages extract
and teach are closed, and `nla run` with the same config continues with SFT.
"""

import argparse
import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from nla_jax import files, workdir
from nla_jax.cli.command_line import Parser
from nla_jax.errors import NLAError
from nla_jax.interop.reference_data import from_store, to_store
from nla_jax.progress import say

USAGE = """nla convert FILE.parquet [MORE.parquet …] FOLDER     to a store and explanations
       nla convert WORKDIR_OR_STORE FILE.parquet --kind=…   to one file
       nla convert WORKDIR_OR_STORE FOLDER                  to every file that the store can fill"""


def _parse(arguments: list[str]) -> argparse.Namespace:
  parser = Parser(prog="nla convert", usage=USAGE, description=__doc__)
  parser.add_argument("source", nargs="+", metavar="FROM", help="parquet files, or one store")
  parser.add_argument("target", metavar="TO", help="a folder, or one parquet file")

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
  parquet = [path for path in options.source if path.endswith(".parquet")]
  for path in options.source:
    if path not in parquet and Path(path).is_file():
      raise NLAError(
        f"{path} is a file and no .parquet: give parquet files of the reference pipeline or a store; arrays of "
        "activations are explained by nla_jax.load(…).explain"
      )
  if not parquet:
    _to_parquet(options)
    return 0

  others = [path for path in options.source if path not in parquet]
  if others:
    raise NLAError(
      f"cannot convert parquet files and {others[0]} at once: give either parquet files or one store"
    )
  _to_store(options)
  return 0


def _to_store(options: argparse.Namespace) -> None:
  if options.target.endswith(".parquet"):
    raise NLAError(
      f"{options.target} names a parquet file, but parquet files are converted to a folder: name that"
    )
  if options.config is not None:
    facts = _to_workdir(options)
  else:
    with _claimed(options.target):
      facts = to_store.to_store(
        options.source,
        options.target,
        model=options.model,
        texts_from=options.texts,
        held_out=options.held_out,
        seed=options.seed,
      )

  splits = ", ".join(f"{name} {n}" for name, n in facts["rows_by_split"].items())
  say(
    f"convert: {facts['rows']} rows of {facts['documents']} documents, {facts['explanations']} explained, in "
    f"{options.target}; by split: {splits}"
  )


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
  side = DataFile(options.source[0]).sidecar
  if config.layer != side.layer_index:
    raise NLAError(
      f"{options.config} is for layer {config.layer}, {options.source[0]} holds layer {side.layer_index}: "
      f"set config.layer = {side.layer_index} in a copy of the config"
    )

  with begin(config, options.target) as run:
    return _close_stages(options, run)


def _close_stages(options: argparse.Namespace, run) -> dict:
  # 1. The store, as what `extract` would have made.
  stage = run.open("extract")
  facts = to_store.to_store(
    options.source,
    options.target,
    model=options.model or run.config.model,
    texts_from=options.texts,
    held_out=run.config.data.held_out,
    seed=run.config.seed,
  )
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
  if len(options.source) > 1:
    raise NLAError(
      f"{len(options.source)} stores were given ({shlex.join(options.source)}): convert one at a time"
    )
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
