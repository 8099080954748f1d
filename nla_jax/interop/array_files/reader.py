"""Named arrays in one file, `npz` or `safetensors`, read a run of rows at a time.

Strings (`ids`, `groups`, `splits`, `sources`, `metadata`) are arrays of strings in an npz. A safetensors file has none:
they are JSON in its metadata, under the same names.
"""

import abc
import contextlib
import hashlib
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from nla_jax.errors import NLAError, first_line
from nla_jax.files import expect_file
from nla_jax.interop.base_models.tensor_files import FLOATS, read_header

ENDINGS = (".npz", ".safetensors")
_WHOLE = {
  f"{kind}{8 * size}": np.dtype(f"{kind.lower()}{size}") for kind in "IU" for size in (1, 2, 4, 8)
}
_DTYPES = FLOATS | _WHOLE
_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile)


class ArrayFile(abc.ABC):
  """Arrays of a file by name. Nothing but headers is read before it is asked for.

  Args:
    path: of the file.

  Attributes:
    path: as given.
    shapes: {name: shape} of the arrays of numbers.
    dtypes: {name: dtype}, as many.
    fingerprint: SHA-256 (hex) of the names, shapes and place of all arrays, with the file's size and time of change.

  Raises:
    NLAError: it is no such file, or not whole.
  """

  def __init__(self, path: str | Path):
    self.path = Path(expect_file(path, "the file of activations", "check the path"))
    self.shapes: dict[str, tuple[int, ...]] = {}
    self.dtypes: dict[str, np.dtype] = {}
    with self._reading():
      self._open()

    # A hash of the content would read a file of any size twice.
    stat = self.path.stat()
    facts = [sorted(self.shapes.items()), sorted(map(str, self.dtypes.values()))]
    facts += [stat.st_size, stat.st_mtime_ns]
    self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()

  def __contains__(self, name: str) -> bool:
    return name in self.shapes

  @contextlib.contextmanager
  def _reading(self) -> Iterator[None]:
    """Turns what a damaged file raises into one line."""
    try:
      yield
    except _BROKEN as error:
      raise NLAError(
        f"{self.path} cannot be read as {self.path.suffix} ({first_line(error)}); write it again, without "
        "pickled objects"
      ) from error

  def read(self, name: str) -> np.ndarray:
    """Returns a whole array of numbers. Raises NLAError where the file is damaged."""
    parts = list(self.batches(name, max(self.shapes[name][0], 1))) if self.shapes[name] else []
    return np.concatenate(parts) if parts else np.zeros(self.shapes[name], self.dtypes[name])

  @abc.abstractmethod
  def batches(self, name: str, rows: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yields an array from row `start` on, `rows` at a time. Raises NLAError where the file is damaged."""

  @abc.abstractmethod
  def strings(self, name: str) -> list[str] | None:
    """Returns the strings under a name; None where there are none. Raises NLAError where it is something else."""

  @abc.abstractmethod
  def _open(self) -> None:
    """Fills `shapes` and `dtypes`."""

  def metadata(self) -> dict[str, Any]:
    """Returns the JSON object under `metadata`; empty where there is none. Raises NLAError where it is no object."""
    found = self.strings("metadata")
    if not found:
      return {}
    try:
      value = json.loads(found[0])
    except (ValueError, RecursionError):
      value = None
    if not isinstance(value, dict):
      raise NLAError(
        f"{self.path} has 'metadata' that is no JSON object; write {{}} or leave it out"
      )
    return value


class NpzFile(ArrayFile):
  """An archive of numpy, as `np.savez` or `np.savez_compressed` writes it. Pickled objects are refused."""

  def _open(self) -> None:
    self._strings: dict[str, list[str]] = {}
    with zipfile.ZipFile(self.path) as archive:
      members = [name for name in archive.namelist() if name.endswith(".npy")]
      for member in members:
        name = member.removesuffix(".npy")
        with archive.open(member) as file:
          shape, columns_first, dtype = _npy_header(file)
          if dtype.hasobject:
            raise ValueError(f"{name!r} holds pickled objects, which can run code")
          if dtype.kind in "US":
            self._strings[name] = _strings_of(file, shape, dtype)
            continue

        # Rows that do not follow one another could not be read in parts.
        if columns_first and len(shape) > 1:
          raise ValueError(f"{name!r} is in Fortran order; np.ascontiguousarray makes it C order")
        self.shapes[name], self.dtypes[name] = shape, dtype

  def batches(self, name: str, rows: int, start: int = 0) -> Iterator[np.ndarray]:
    shape, dtype = self.shapes[name], self.dtypes[name]
    width = dtype.itemsize * math.prod(shape[1:])
    with (
      self._reading(),
      zipfile.ZipFile(self.path) as archive,
      archive.open(name + ".npy") as file,
    ):
      _npy_header(file)
      # Of a compressed member all that is before is read, which happens once.
      file.seek(start * width, 1)
      for first in range(start, shape[0], rows):
        count = min(rows, shape[0] - first)
        yield np.frombuffer(_exactly(file, count * width), dtype).reshape(count, *shape[1:])

  def strings(self, name: str) -> list[str] | None:
    if name in self.shapes:
      raise NLAError(f"{self.path} has numbers as {name!r}; expected strings")
    return self._strings.get(name)


class SafetensorsFile(ArrayFile):
  """A safetensors file; its strings are JSON in the metadata."""

  def _open(self) -> None:
    self._entries = read_header(self.path)
    for name, entry in self._entries.items():
      if entry.dtype not in _DTYPES:
        raise ValueError(f"{name!r} is {entry.dtype}; expected {', '.join(sorted(_DTYPES))}")
      self.shapes[name], self.dtypes[name] = entry.shape, _DTYPES[entry.dtype]
    with safe_open(self.path, "numpy") as file:
      self._metadata = file.metadata() or {}

  def batches(self, name: str, rows: int, start: int = 0) -> Iterator[np.ndarray]:
    shape, dtype, entry = self.shapes[name], self.dtypes[name], self._entries[name]
    width = dtype.itemsize * math.prod(shape[1:])
    with self._reading(), open(self.path, "rb") as file:
      file.seek(entry.start + start * width)
      for first in range(start, shape[0], rows):
        count = min(rows, shape[0] - first)
        yield np.frombuffer(_exactly(file, count * width), dtype).reshape(count, *shape[1:])

  def strings(self, name: str) -> list[str] | None:
    text = self._metadata.get(name)
    # This one is an object, which `metadata` parses.
    if text is None or name == "metadata":
      return None if text is None else [text]
    try:
      value = json.loads(text)
    except (ValueError, RecursionError):
      value = None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
      raise NLAError(f"{self.path} has {name!r} in its metadata that is no JSON list of strings")
    return value


def open_array_file(path: str | Path) -> ArrayFile:
  """Opens a file by its ending. Raises NLAError as `ArrayFile` does, and where the ending is another."""
  kinds = dict(zip(ENDINGS, (NpzFile, SafetensorsFile), strict=True))
  kind = kinds.get(Path(path).suffix)
  if kind is None:
    raise NLAError(f"{path} is no file of arrays; expected {' or '.join(ENDINGS)}")
  return kind(path)


def _npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Reads the header of an array in numpy's format: its shape, whether it is in Fortran order, its dtype."""
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    return np.lib.format.read_array_header_1_0(file)
  return np.lib.format.read_array_header_2_0(file)


def _strings_of(file, shape: tuple[int, ...], dtype: np.dtype) -> list[str]:
  count = math.prod(shape)
  found = np.frombuffer(_exactly(file, count * dtype.itemsize), dtype)
  return [one.decode() if isinstance(one, bytes) else str(one) for one in found.tolist()]


def _exactly(file, size: int) -> bytes:
  content = file.read(size)
  if len(content) != size:
    raise EOFError(f"{size - len(content)} bytes are missing at the end")
  return content
