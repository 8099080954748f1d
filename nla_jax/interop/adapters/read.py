"""Reads a directory of PEFT's LoRA as our stacked matrices A and B."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from nla_jax.errors import NLAError
from nla_jax.files import here
from nla_jax.interop.adapters.settings import Settings, read_settings
from nla_jax.interop.adapters.tensors import (
  HALVES,
  WEIGHTS_FILE,
  Matrix,
  Names,
  adapted_leaves,
  check_shape,
  file_shape,
  from_file,
  our_shapes,
  parse_names,
)
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.numbers import check_largest, largest_of
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import TARGETS, Lora


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
  """An adapter as it was found.

  Attributes:
    lora: rank, alpha and targets of `params`; the rank is the largest of the file's.
    params: {"layers": {"NAME_lora_a": [layers, *inputs, rank], "NAME_lora_b": [layers, rank, *outputs]}} of every
      target, numpy float32. What the file does not adapt is zero in both, so its gradient is zero too.
    base: the base model as the adapter's trainer called it; may be empty.
    root: what stands before `layers` in the names of the file, for `write_adapter`.
    outside: names of the file's matrices of an image tower, through which no text passes; they are not read.
    hash: sha256 (hex) of rank, alpha and matrices.
  """

  lora: Lora
  params: dict[str, dict[str, np.ndarray]]
  base: str
  root: str
  outside: tuple[str, ...]
  hash: str


def read_adapter(
  directory: str | Path, architecture: Architecture, *, layers: int | None = None
) -> Adapter:
  """Reads an adapter. Everything that headers can tell is checked before a matrix is read.

  Different ranks are padded with zeros to the largest, and different scales are folded into B.

  Args:
    directory: holds adapter_config.json and adapter_model.safetensors.
    architecture: of the whole base model that the adapter was trained on.
    layers: how many of the first blocks are wanted, where the base is read up to block K only; None for all. What the
      file has above them is checked and left out.

  Raises:
    NLAError: a file is missing or damaged, the adapter is more than plain LoRA of the blocks' matrices, it belongs to
      another base, or it changes none of the wanted blocks.
  """
  directory = Path(here(directory))
  settings = read_settings(directory)
  return read_matrices(_weights_file(directory), settings, architecture, layers=layers)


def read_matrices(
  path: Path,
  settings: Settings,
  architecture: Architecture,
  *,
  layers: int | None = None,
  names: dict[str, str] | None = None,
) -> Adapter:
  """Reads the matrices of one file; the rest is as `read_adapter` has it.

  Args:
    path: the file.
    settings: ranks and scales.
    architecture: of the whole model that is adapted.
    layers: how many of the first blocks are wanted; None for all.
    names: {PEFT's name: name in the file}, where the file has names of its own.
  """
  # 1. What is there.
  header = tensor_files.read_header(path)
  names_there = names or dict(zip(header, header))
  entries = {name: header[there] for name, there in names_there.items()}
  names = parse_names(entries, architecture, path)
  _check_entries(entries, names, settings, architecture, path)

  # 2. What is wanted of it.
  layers = architecture.n_layers if layers is None else layers
  if not 1 <= layers <= architecture.n_layers:
    raise NLAError(f"{layers} blocks were asked for, but the base has {architecture.n_layers}")
  wanted = [matrix for matrix in names.matrices if matrix.layer < layers]
  if not wanted:
    raise NLAError(
      f"{path} adapts none of the blocks 0..{layers - 1}, so it changes nothing that is read here: "
      "leave it out or read a higher layer"
    )

  # 3. The matrices.
  lora = _common(wanted, settings)
  with _opened(path, names_there) as read:
    params = _read_stacks(read, wanted, lora, settings, architecture, layers)
  return Adapter(
    lora=lora,
    params={"layers": params},
    base=settings.base,
    root=names.root,
    outside=names.outside,
    hash=_hash(lora, params),
  )


def _weights_file(directory: Path) -> Path:
  """The safetensors. Raises NLAError where they are missing; a pickle gets a message of its own."""
  path = directory / WEIGHTS_FILE
  if path.is_file():
    return path

  pickle = directory / "adapter_model.bin"
  if pickle.is_file():
    raise NLAError(
      f"{directory} holds only a torch pickle ({pickle.name}), which can run code when loaded and is not "
      "read: save the adapter as safetensors"
    )
  raise NLAError(f"no {WEIGHTS_FILE} in {directory}: fetch the adapter's weights")


def _check_entries(
  entries: dict[str, tensor_files.Entry],
  names: Names,
  settings: Settings,
  architecture: Architecture,
  path: Path,
) -> None:
  """Raises NLAError where a matrix has another shape than base and config say, or holds no floats."""
  for matrix in names.matrices:
    rank = settings.rank_of(matrix.module)
    for half in HALVES:
      key = matrix.key(half)
      check_shape(entries[key].shape, file_shape(matrix.leaf, architecture, half, rank), key, path)

      if entries[key].dtype not in tensor_files.FLOATS:
        raise NLAError(
          f"{path}: {key} is {entries[key].dtype}, expected one of {', '.join(tensor_files.FLOATS)}: "
          "save the adapter with its matrices as floats"
        )


def _common(matrices: Iterable[Matrix], settings: Settings) -> Lora:
  """The one rank and scale under which all of these matrices are stacked."""
  rank = max(settings.rank_of(matrix.module) for matrix in matrices)
  found = {matrix.leaf.ours for matrix in matrices}

  # Padding leaves A · B as it was, so the scale has to stay what it was at the adapter's own rank.
  alpha = settings.scale * rank
  return Lora(rank, alpha, tuple(name for name in TARGETS if name in found))


def _read_stacks(
  read: Callable[[str], np.ndarray],
  matrices: Iterable[Matrix],
  lora: Lora,
  settings: Settings,
  architecture: Architecture,
  layers: int,
) -> dict[str, np.ndarray]:
  """The stacks of A and B, in which everything that the file does not hold is zero."""
  leaves, stacks = adapted_leaves(architecture), {}
  for name in lora.targets:
    for half, shape in zip("ab", our_shapes(leaves[name], architecture, lora.rank), strict=True):
      stacks[f"{name}_lora_{half}"] = np.zeros((layers, *shape), np.float32)

  for matrix in matrices:
    rank, name = settings.rank_of(matrix.module), matrix.leaf.ours
    shapes = our_shapes(matrix.leaf, architecture, rank)
    a, b = (
      from_file(read(matrix.key(half)), shape) for half, shape in zip(HALVES, shapes, strict=True)
    )
    stacks[f"{name}_lora_a"][matrix.layer, ..., :rank] = a

    # Exactly 1 where no pattern names the module, so its numbers are the file's own.
    factor = np.float32(settings.scale_of(matrix.module) / settings.scale)
    stacks[f"{name}_lora_b"][matrix.layer, :rank] = b * factor
  return stacks


@contextlib.contextmanager
def _opened(path: Path, names: dict[str, str]) -> Iterator[Callable[[str], np.ndarray]]:
  """Gives a function of PEFT's name that reads one matrix as float32; `names` are those in the file.

  Raises:
    NLAError: the file cannot be read, or holds a number that no trained model has.
  """

  def read(key: str) -> np.ndarray:
    array = np.asarray(file.get_tensor(names[key]), np.float32)
    check_largest(largest_of(array), f"{path}: {key}")
    return array

  try:
    with safe_open(path, "np") as file:
      yield read
  except (SafetensorError, OSError) as error:
    raise NLAError(f"{path} is not a whole safetensors file ({error}): fetch it again") from error


def _hash(lora: Lora, stacks: dict[str, np.ndarray]) -> str:
  """sha256 (hex) of everything that decides the change."""
  # All bytes, unlike a base model's samples: adapters are small, and one step of training changes few digits.
  digest = hashlib.sha256(f"{lora.rank} {lora.alpha!r}\n".encode())
  for name, stack in sorted(stacks.items()):
    digest.update(f"{name} {list(stack.shape)}\n".encode())
    digest.update(stack)
  return digest.hexdigest()
