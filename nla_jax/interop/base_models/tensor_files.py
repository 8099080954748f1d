"""Safetensors on disk: reads many shards lazily as one, and writes shards of bounded size."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.numbers import check_largest, largest_of

INDEX = "model.safetensors.index.json"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
FLOATS = {
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": DTYPES["bfloat16"],
  "F64": np.dtype(np.float64),
}
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth")


@dataclasses.dataclass(frozen=True)
class Entry:
  """Where a tensor lies in a file.

  Attributes:
    path: the file.
    dtype: the format's own name, such as BF16.
    shape: in row-major order.
    start: its first byte in the file.
    stop: the byte after its last.
  """

  path: Path
  dtype: str
  shape: tuple[int, ...]
  start: int
  stop: int


def read_header(path: Path) -> dict[str, Entry]:
  """Where each tensor of one safetensors file lies. Raises NLAError where the file is missing or not whole."""
  try:
    # 1. The file begins with the header's length (8 bytes) and the header, a JSON object.
    size = path.stat().st_size
    with open(path, "rb") as file:
      length = int.from_bytes(file.read(8), "little")
      if size < 8 or length > size - 8:
        raise ValueError(f"{size} bytes, cut off in its header")
      header = json.loads(file.read(length))

    # 2. Offsets count from the header's end.
    first = 8 + length
    entries = {}
    for name, found in header.items():
      if name != "__metadata__":
        start, stop = found["data_offsets"]
        entries[name] = Entry(
          path, found["dtype"], tuple(found["shape"]), first + start, first + stop
        )

    # 3. A download that was broken off shows in the size, without a tensor being read.
    end = max((entry.stop for entry in entries.values()), default=first)
    if end != size:
      raise ValueError(f"{size} bytes, its header says {end}")
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    reason = error.strerror if isinstance(error, OSError) else error
    raise NLAError(
      f"{path} is not a whole safetensors file ({reason}): fetch it again{_interrupted(path)}"
    ) from error
  return entries


def weight_files(directory: Path) -> list[Path]:
  """The safetensors files that hold the model, sorted; `value_head` and the like are not among them.

  Raises:
    NLAError: there are none (torch pickles are refused), or one is missing that an index names or that a file name
      such as `…-00001-of-00004…` implies.
  """
  files = sorted(set(_shard_of_index(directory).values()))
  files = files or sorted(directory.glob("model*.safetensors"))
  if files:
    _check_present(files, files)
    return files

  # A directory that holds only pickles gets a message of its own: reading one can run code.
  pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
  if pickles:
    raise NLAError(
      f"{directory} holds only torch pickles ({pickles[0]}), which can run code when loaded and "
      "are not read: convert the model to safetensors"
    )
  raise NLAError(
    f"{directory} holds no model*.safetensors: check the path, or fetch the weights"
    f"{_interrupted(directory / 'model.safetensors')}"
  )


def read_index(path: Path) -> dict[str, str]:
  """Reads the file name of each tensor from an index of shards. Raises NLAError where the file is no such index."""
  try:
    shard_of = json.loads(path.read_text())["weight_map"]
    if shard_of and all(isinstance(name, str) for name in shard_of.values()):
      return dict(shard_of)
    raise ValueError("no weight_map of names")
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise NLAError(f"{path} is no index of safetensors shards: fetch the file again") from error


def _shard_of_index(directory: Path) -> dict[str, Path]:
  """The shard of each tensor as the directory's index says; empty where it has no index."""
  if not (directory / INDEX).is_file():
    return {}
  return {name: directory / shard for name, shard in read_index(directory / INDEX).items()}


def _check_present(needed: list[Path], named: list[Path]) -> None:
  """Raises NLAError where a needed file is missing, or one of a numbered series without an index."""
  absent = [path for path in needed if not path.is_file()]

  # A name such as model-00002-of-00004.safetensors says how many there must be, where no index does.
  counts = [re.fullmatch(r"(.*-)(\d+)-of-(\d+)(\.safetensors)", path.name) for path in named]
  for match in filter(None, counts):
    series = [
      match[1] + str(i).zfill(len(match[2])) + f"-of-{match[3]}{match[4]}"
      for i in range(1, int(match[3]) + 1)
    ]
    absent = absent or [
      named[0].parent / name for name in series if named[0].parent / name not in named
    ]

  if absent:
    raise NLAError(
      f"{absent[0].parent} lacks the shard {absent[0].name} that its index names or its other "
      f"shards count ({len(absent)} missing): fetch it{_interrupted(absent[0])}"
    )


def _interrupted(path: Path) -> str:
  """What to say of a download that was broken off, where the hub's client left a part of a file; else nothing."""
  # With --local-dir the client leaves it below the folder, else beside the blobs of its cache.
  beside = (
    path.parent,
    path.parent / ".cache" / "huggingface" / "download",
    path.parent.parent.parent / "blobs",
  )
  if any(folder.is_dir() and any(folder.glob("*.incomplete")) for folder in beside):
    return " (a download was broken off here: the same download again goes on from there)"
  return ""


class TensorFiles:
  """All tensors of a directory by name. Tensors are memory-mapped; a file that is not asked for is never opened.

  Raises:
    NLAError: no safetensors (torch pickles are refused), or a file without an index is missing or damaged.
  """

  def __init__(self, directory: Path):
    self.directory = directory
    self._shard_of = _shard_of_index(directory)
    self._headers: dict[Path, dict[str, Entry]] = {}

    # Without an index the headers are the only place that says which file holds what.
    if not self._shard_of:
      for path in weight_files(directory):
        self._shard_of |= dict.fromkeys(self._header(path), path)

  @property
  def names(self) -> set[str]:
    """The names of all tensors."""
    return set(self._shard_of)

  def _header(self, path: Path) -> dict[str, Entry]:
    """A file's header, read once."""
    if path not in self._headers:
      self._headers[path] = read_header(path)
    return self._headers[path]

  def entry(self, name: str) -> Entry:
    """Where a tensor lies. Raises NLAError where it is missing or its file is not whole."""
    found = self._header(self._shard_of[name]).get(name) if name in self._shard_of else None
    if found is None:
      raise NLAError(
        f"{self.directory} lacks the tensor {name}: the files are incomplete or config.json "
        "belongs to another model"
      )
    return found

  def check(self, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises NLAError where one of these tensors is missing or has another shape or kind; reads headers only."""
    # Missing files first: one message for a shard is clearer than one for the first of its tensors.
    _check_present(sorted({self._shard_of[name] for name in shapes if name in self._shard_of}), [])

    for name, shape in shapes.items():
      found = self.entry(name)
      if found.shape != tuple(shape) or found.dtype not in FLOATS:
        raise NLAError(
          f"{self.directory}: {name} is {found.dtype} {list(found.shape)}, config.json asks for a float "
          f"of {list(shape)}: the files and config.json belong to different models"
        )

  def view(self, name: str) -> np.ndarray:
    """One tensor as a read-only map of the file, in the file's dtype; only what is taken from it is read."""
    entry = self.entry(name)
    # `placement` cuts each device's piece out of the map, so a process reads only what its devices hold.
    mapped = np.memmap(entry.path, np.uint8, "r", entry.start, entry.stop - entry.start)
    return mapped.view(FLOATS[entry.dtype]).reshape(entry.shape)

  def sample(self, name: str, pieces: int = 16, size: int = 4096) -> bytes:
    """Pieces of a tensor spread evenly from its first byte to its last, or all of it where it is small."""
    entry = self.entry(name)
    length = entry.stop - entry.start
    if length <= pieces * size:
      pieces, size = 1, length

    # `pread` takes the pieces alone; the rest of the weights, which may lie on a network disk, is not read.
    with open(entry.path, "rb", buffering=0) as file:
      starts = [entry.start + (length - size) * i // max(pieces - 1, 1) for i in range(pieces)]
      return b"".join(os.pread(file.fileno(), size, start) for start in starts)


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that is still to be written.

  Attributes:
    name: in the file.
    shape: in the file.
    make: function that returns it as float32 [shape]; it is called when the turn of its shard comes.
  """

  name: str
  shape: tuple[int, ...]
  make: Callable[[], np.ndarray]


def write_tensors(
  directory: Path,
  tensors: Iterable[Tensor],
  *,
  dtype: str = "float32",
  shard_bytes: int = 5_000_000_000,
) -> list[Path]:
  """Writes `model.safetensors`, or `model-0000i-of-0000n.safetensors` with an index.

  Only one shard is in memory at a time. Returns the files.

  Args:
    directory: an existing folder.
    tensors: in the order of writing.
    dtype: `float32` or `bfloat16` in the file.
    shard_bytes: upper bound of a shard; a larger tensor has a shard of its own.

  Raises:
    NLAError: the disk is full or the directory cannot be written.
  """
  if dtype not in DTYPES:
    raise NLAError(f"dtype {dtype!r} was asked for; weights are written as {' or '.join(DTYPES)}")

  # 1. Which tensors go into which shard: a file's name holds the number of shards, so it must be known first.
  itemsize = DTYPES[dtype].itemsize
  shards: list[list[Tensor]] = [[]]
  filled = total = 0
  for tensor in tensors:
    size = int(np.prod(tensor.shape)) * itemsize
    if shards[-1] and filled + size > shard_bytes:
      shards.append([])
      filled = 0
    shards[-1].append(tensor)
    filled += size
    total += size

  # 2. One shard after another; its tensors are made now.
  single = len(shards) == 1
  paths, weight_map = [], {}
  for index, shard in enumerate(shards, start=1):
    name = "model.safetensors" if single else f"model-{index:05d}-of-{len(shards):05d}.safetensors"
    write_file(directory / name, {t.name: t.make() for t in shard}, dtype=dtype)
    paths.append(directory / name)
    weight_map |= {tensor.name: name for tensor in shard}

  # 3. The index last: it names only files that are whole.
  if not single:
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")
  return paths


def write_file(path: Path, arrays: dict[str, np.ndarray], *, dtype: str = "float32") -> None:
  """Writes one safetensors file with the metadata that torch readers ask for. Raises NLAError when that fails."""
  # Arrays come as float32, some as transposed views of the parameters.
  arrays = {
    name: np.ascontiguousarray(array, dtype=DTYPES[dtype]) for name, array in arrays.items()
  }
  try:
    # transformers refuses a file that does not say whose tensors it holds.
    save_file(arrays, path, metadata={"format": "pt"})
  except (SafetensorError, OSError) as error:
    raise NLAError(
      f"{path} could not be written ({error}): free some space or choose another directory"
    ) from error


def read_file(
  path: Path, shapes: dict[str, tuple[int, ...]], *, others: bool = False
) -> dict[str, np.ndarray]:
  """Reads the named tensors of one file as float32.

  Args:
    path: the file.
    shapes: {name: shape}, of all tensors in it.
    others: there may be more in it.

  Raises:
    NLAError: the file holds other tensors, or one has another shape or a number that no trained model has.
  """
  try:
    with safe_open(path, "np") as file:
      names = set(file.keys())
      if not names >= set(shapes) or (names != set(shapes) and not others):
        raise NLAError(
          f"{path} holds the keys {sorted(names)}, expected {sorted(shapes)}: take the file "
          "from the checkpoint that it belongs to"
        )
      arrays = {name: np.asarray(file.get_tensor(name), np.float32) for name in shapes}
  except (SafetensorError, OSError) as error:
    raise NLAError(
      f"{path} is missing or not a whole safetensors file ({error}): fetch it again"
    ) from error

  # Files of a few MB, written by others as well: every value is looked at.
  for name, shape in shapes.items():
    if arrays[name].shape != shape:
      raise NLAError(
        f"{path}: {name} has shape {list(arrays[name].shape)}, expected {list(shape)}: it "
        "belongs to another model"
      )
    check_largest(largest_of(arrays[name]), f"{path}: {name}")
  return arrays
