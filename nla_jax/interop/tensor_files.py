"""Safetensors on disk: many shards read as one lazily, and written as shards of bounded size."""
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nla_jax.errors import NLAError

INDEX = "model.safetensors.index.json"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_FLOATS = ("F32", "F16", "BF16", "F64")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth")


@contextlib.contextmanager
def open_tensors(directory: Path):
  """Yields a `TensorFiles` over the directory's model shards; tensors are memory-mapped until they are read.

  Raises:
    NLAError: no safetensors (torch pickles are refused), a shard is missing or damaged.
  """
  with contextlib.ExitStack() as stack:
    yield TensorFiles(directory, stack)


def weight_files(directory: Path) -> list[Path]:
  """The safetensors files that hold the model, sorted; `value_head` and the like are not among them."""
  if (directory / INDEX).is_file():
    try:
      names = set(json.loads((directory / INDEX).read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
      raise NLAError(f"{directory / INDEX} is no index of safetensors shards: fetch the file again"
                     "") from error
    files = [directory / name for name in sorted(names)]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
      raise NLAError(f"{directory} lacks the shard {missing[0]} that its index names ({len(missing)} of "
                     f"{len(files)} missing): fetch it")
    return files
  files = sorted(directory.glob("model*.safetensors"))
  if files:
    return files
  pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
  if pickles:
    raise NLAError(f"{directory} holds only torch pickles ({pickles[0]}), which can run code when loaded and "
                   "are not read: convert the model to safetensors")
  raise NLAError(f"{directory} holds no model*.safetensors: check the path, or fetch the weights")


class TensorFiles:
  """All tensors of a directory by name."""

  def __init__(self, directory: Path, stack: contextlib.ExitStack):
    self.directory = directory
    self._file_of = {}
    for path in weight_files(directory):
      try:
        file = stack.enter_context(safe_open(path, "np"))
      except (SafetensorError, OSError) as error:
        raise NLAError(f"{path} is not a whole safetensors file ({error}): fetch it again") from error
      self._file_of |= dict.fromkeys(file.keys(), file)

  @property
  def names(self) -> set[str]:
    return set(self._file_of)

  def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor, in the file's dtype. Raises NLAError if it is missing or of another shape or kind."""
    if name not in self._file_of:
      raise NLAError(f"{self.directory} lacks the tensor {name}: the files are incomplete or config.json "
                     "belongs to another model")
    view = self._file_of[name].get_slice(name)
    found, dtype = list(view.get_shape()), view.get_dtype()
    if found != list(shape) or dtype not in _FLOATS:
      raise NLAError(f"{self.directory}: {name} is {dtype} {found}, config.json asks for a float of "
                     f"{list(shape)}: the files and config.json belong to different models")
    return self._file_of[name].get_tensor(name)


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor still to be written: `make()` gives it as float32 [shape] when its shard's turn comes."""

  name: str
  shape: tuple[int, ...]
  make: Callable[[], np.ndarray]


def write_tensors(directory: Path, tensors: Iterable[Tensor], *, dtype: str = "float32",
                  shard_bytes: int = 5_000_000_000) -> list[Path]:
  """Writes `model.safetensors`, or `model-0000i-of-0000n.safetensors` with an index.

  Only one shard is in memory at a time.

  Args:
    directory: exists.
    tensors: in the order of writing.
    dtype: `float32` or `bfloat16` in the file.
    shard_bytes: upper bound of a shard; a larger tensor has a shard of its own.

  Raises:
    NLAError: the disk is full or the directory cannot be written.
  """
  if dtype not in DTYPES:
    raise NLAError(f"dtype {dtype!r} was asked for; weights are written as {' or '.join(DTYPES)}")
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
  single = len(shards) == 1
  paths, weight_map = [], {}
  for index, shard in enumerate(shards, start=1):
    name = "model.safetensors" if single else f"model-{index:05d}-of-{len(shards):05d}.safetensors"
    write_file(directory / name, {t.name: t.make() for t in shard}, dtype=dtype)
    paths.append(directory / name)
    weight_map |= {tensor.name: name for tensor in shard}
  if not single:
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")
  return paths


def write_file(path: Path, arrays: dict[str, np.ndarray], *, dtype: str = "float32") -> None:
  """One safetensors file with the metadata that torch readers ask for. Raises NLAError when that fails."""
  arrays = {name: np.ascontiguousarray(array, dtype=DTYPES[dtype]) for name, array in arrays.items()}
  try:
    save_file(arrays, path, metadata={"format": "pt"})
  except (SafetensorError, OSError) as error:
    raise NLAError(f"{path} could not be written ({error}): free some space or choose another directory"
                   "") from error


def read_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """The named tensors of one file as float32. Raises NLAError if one is missing or does not fit."""
  try:
    with safe_open(path, "np") as file:
      names = set(file.keys())
      if names != set(shapes):
        raise NLAError(f"{path} holds the keys {sorted(names)}, expected {sorted(shapes)}: take the file "
                       "from the checkpoint that it belongs to")
      arrays = {name: np.asarray(file.get_tensor(name), np.float32) for name in shapes}
  except (SafetensorError, OSError) as error:
    raise NLAError(f"{path} is missing or not a whole safetensors file ({error}): fetch it again") from error
  for name, shape in shapes.items():
    if arrays[name].shape != shape:
      raise NLAError(f"{path}: {name} has shape {list(arrays[name].shape)}, expected {list(shape)}: it "
                     "belongs to another model")
  return arrays
