"""Opens a GGUF model, in one file or in numbered parts, and says what a file is that cannot be opened."""

import dataclasses
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.errors import NLAError, first_line, shown
from nla_jax.interop.base_models.gguf_tokenizer import tokenizer_from_header
from nla_jax.interop.base_models.record import hash_file

_VERSIONS = (2, 3)
_PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})(\.gguf)")

# How files of other forms begin, and what to do with them.
_OTHERS = {
  b"version https://git-lfs": "a pointer of Git LFS, not the file itself: fetch it with git lfs pull or hf download",
  b"<!DOCTYPE": "a web page: fetch the file itself, with hf download",
  b"<html": "a web page: fetch the file itself, with hf download",
  b"PK\x03\x04": "a zip archive, as torch writes its pickles: give a GGUF file or a directory of safetensors",
  b"\x1f\x8b": "compressed with gzip: unpack it first",
  b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
}
# Formats before GGUF, which hold no tokenizer that could be rebuilt.
_OLD = (b"lmgg", b"tjgg", b"fmgg", b"algg")


@dataclasses.dataclass(frozen=True)
class Opened:
  """A model's header and its tensors, which stay memory-mapped.

  Attributes:
    header: the key/value pairs; of a model in parts those of the first.
    tensors: {name: tensor}, of all parts.
    files: the file, or the parts in order.
  """

  header: dict[str, Any]
  tensors: dict[str, Any]
  files: tuple[Path, ...]

  @property
  def size(self) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in self.files)

  @functools.cached_property
  def hash(self) -> str:
    """sha256 (hex) of the file's bytes; of several files, of their hashes."""
    if len(self.files) == 1:
      return hash_file(self.files[0])
    return hashlib.sha256("\n".join(map(hash_file, self.files)).encode()).hexdigest()

  @functools.cached_property
  def tokenizer(self):
    """The model's own, built once: it takes a second. Raises NLAError as `tokenizer_from_header`."""
    return tokenizer_from_header(self.header)


def open_gguf(path: str | Path) -> Opened:
  """Opens a model by its file, or by any of its parts NAME-0000i-of-0000n.gguf.

  Raises:
    NLAError: a file is missing, cut off, of another byte order or version, or of another form; or parts do not belong
      together.
  """
  # 1. All parts are there before one is opened, which takes seconds where the vocabulary is large.
  files = _files(Path(path))
  stats = [file.stat() for file in files]
  return _opened(tuple(files), tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in stats))


@functools.lru_cache(maxsize=2)
def _opened(files: tuple[Path, ...], stats: tuple) -> Opened:
  """The model in these files, as they were at `stats`: a pair asks for its base twice, and a header takes seconds."""
  readers = [_open(file) for file in files]
  header = _header(readers[0], files[0])

  # 2. What the header counts.
  count = int(header.get("split.count", 1) or 1)
  if count != len(files):
    raise NLAError(
      f"{files[0]} says that it is one of {count} parts, and its name says {len(files)}: name them "
      f"NAME-00001-of-{count:05d}.gguf and so on, or join them with llama-gguf-split --merge"
    )
  tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
  total = header.get("split.tensors.count", len(tensors))
  if len(tensors) != total:
    raise NLAError(
      f"the {count} parts of {files[0]} hold {len(tensors)} tensors, the first says {total}: they are parts of "
      "different models, fetch them again"
    )
  return Opened(header, tensors, files)


def parts_of(path: Path) -> list[Path]:
  """All parts that a part's name counts, in order, whether they are there or not; the file itself where it is none."""
  match = _PART.fullmatch(path.name)
  if match is None or not int(match[3]):
    return [path]
  stem, _, count, end = match.groups()
  return [path.with_name(f"{stem}{i:05d}-of-{count}{end}") for i in range(1, int(count) + 1)]


def _files(path: Path) -> list[Path]:
  """The file itself, or all parts of it in order. Raises NLAError where one is missing."""
  if not path.is_file():
    raise NLAError(f"no GGUF file at {path}: check the path")
  parts = parts_of(path)
  absent = [part.name for part in parts if not part.is_file()]
  if absent:
    raise NLAError(
      f"{path} is one of {len(parts)} parts, and {absent[0]} is not beside it ({len(absent)} missing): fetch it"
    )
  return parts


def _open(path: Path):
  """A `gguf.GGUFReader` whose tensors stay memory-mapped. Raises NLAError where it is no whole GGUF file."""
  from gguf import GGUFReader  # 0.4 s to import, and `import nla_jax` does not need it

  class Reader(GGUFReader):
    """A reader that slices the file as a plain array over the same mapping.

    A vocabulary is cut out in half a million slices, and as many `np.memmap`s take seconds to make.
    """

    data = property(
      lambda self: self._data, lambda self, mapped: setattr(self, "_data", np.asarray(mapped))
    )

  _check_form(path)
  try:
    return Reader(path)
  except Exception as error:
    # The reader has no error of its own: damage shows as ValueError, IndexError, KeyError, UnicodeDecodeError, ...
    size = path.stat().st_size
    raise NLAError(
      f"{path} ({size} bytes) is not a whole GGUF file ({type(error).__name__}: {error}): fetch "
      "it again"
    ) from error


def _header(reader, path: Path) -> dict[str, Any]:
  """The keys of a file's header with their values. Raises NLAError where one cannot be read."""
  found = {}
  for name, field in reader.fields.items():
    try:
      found[name] = field.contents()
    except Exception as error:
      # Strings are decoded only now, and the reader has no error of its own.
      raise NLAError(
        f"{path} is damaged: {shown(name)} of its header cannot be read ({type(error).__name__}: "
        f"{first_line(error)}): fetch it again"
      ) from error
  return found


def _check_form(path: Path) -> None:
  """Raises NLAError where the first bytes say that a file is sound and of another form."""
  with open(path, "rb") as file:
    first = file.read(32)
  for start, what in _OTHERS.items():
    if first.startswith(start):
      raise NLAError(f"{path} is {what}")
  if first[:4] in _OLD or first[:4] in {name[::-1] for name in _OLD}:
    raise NLAError(
      f"{path} is a GGML file from before GGUF: convert the model again with llama.cpp"
    )
  if first[8:9] == b"{" and int.from_bytes(first[:8], "little") < path.stat().st_size:
    raise NLAError(
      f"{path} is a safetensors file: give the directory that holds it and config.json"
    )

  # The magic is four letters in either order; the version after it tells which end comes first.
  version = int.from_bytes(first[4:8], "little")
  swapped = int.from_bytes(first[4:8], "big")
  if first[:4] == b"FUGG" or (first[:4] == b"GGUF" and swapped in _VERSIONS):
    raise NLAError(
      f"{path} is big-endian, little-endian files are read: convert it with gguf-convert-endian {path.name} little"
    )
  if first[:4] == b"GGUF" and len(first) >= 8 and version not in _VERSIONS:
    raise NLAError(
      f"{path} is GGUF of version {version}, versions {' and '.join(map(str, _VERSIONS))} are read: convert the model "
      "again"
    )
