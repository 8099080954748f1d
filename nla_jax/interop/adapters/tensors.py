"""Names and layouts of the matrices in `adapter_model.safetensors`, made from the table of the parameters' names."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.parameter_names import Leaf, block_leaves
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import TARGETS

WEIGHTS_FILE = "adapter_model.safetensors"
HALVES = ("A", "B")

# PEFT wraps the base twice before its own path begins.
_PREFIX = "base_model.model."
_BLOCK = "model.layers.{layer}."

# What stands before `layers` in the path of a base model's block, by how the base was loaded when it was trained.
ROOTS = (
  "model.",  # a causal language model
  "model.language_model.",  # a multimodal model since transformers 4.52
  "language_model.model.",  # a multimodal model before
  "language_model.",  # a multimodal model without its head
  "",  # a language model without its head
)
_OUTSIDE = ("vision_tower", "multi_modal_projector")


def is_multimodal(root: str) -> bool:
  """Whether a root is that of a language model inside a multimodal one."""
  return "language_model" in root


@dataclasses.dataclass(frozen=True)
class Matrix:
  """One adapted matrix of one block.

  Attributes:
    leaf: the adapted parameter.
    layer: the block, 0-based.
    root: one of `ROOTS`.
  """

  leaf: Leaf
  layer: int
  root: str

  @property
  def module(self) -> str:
    """The path of the adapted module in the base model."""
    return f"{self.root}layers.{self.layer}.{module_of(self.leaf)}"

  def key(self, half: str) -> str:
    """The name of its `A` or `B` in the file."""
    return f"{_PREFIX}{self.module}.lora_{half}.weight"


def adapted_leaves(architecture: Architecture) -> dict[str, Leaf]:
  """{our name: parameter} of the matrices of a block that can be adapted."""
  return {leaf.ours: leaf for leaf in block_leaves(architecture) if leaf.ours in TARGETS}


def module_of(leaf: Leaf) -> str:
  """A matrix's path inside its block, as in self_attn.q_proj."""
  return leaf.hf.removeprefix(_BLOCK).removesuffix(".weight")


def our_shapes(
  leaf: Leaf, architecture: Architecture, rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Our shapes of one layer's A [*inputs, rank] and B [rank, *outputs]."""
  shape = leaf.shape(architecture)
  return (*shape[: leaf.inputs], rank), (rank, *shape[leaf.inputs :])


def file_shape(leaf: Leaf, architecture: Architecture, half: str, rank: int) -> tuple[int, int]:
  """The shape in the file: A is [rank, inputs], B is [outputs, rank]."""
  outputs, inputs = leaf.file_shape(architecture)
  return (rank, inputs) if half == "A" else (outputs, rank)


def to_file(half: str, array: np.ndarray) -> np.ndarray:
  """Our A [*inputs, rank] or B [rank, *outputs] as the file has it."""
  rank = array.shape[-1] if half == "A" else array.shape[0]
  flat = array.reshape((-1, rank) if half == "A" else (rank, -1))
  return np.ascontiguousarray(flat.T)


def from_file(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """The inverse of `to_file`, given our shape."""
  return array.T.reshape(shape)


@dataclasses.dataclass(frozen=True)
class Names:
  """What the names in a file say.

  Attributes:
    matrices: the adapted matrices; both halves of each are there.
    root: where the base's decoder stands, one of `ROOTS`.
    outside: names of matrices of an image tower, through which no text passes.
  """

  matrices: tuple[Matrix, ...]
  root: str
  outside: tuple[str, ...]


def parse_names(names: Iterable[str], architecture: Architecture, path: Path) -> Names:
  """Finds the adapted matrices by the names in a file.

  Args:
    names: of all its tensors.
    architecture: of the whole base model.
    path: what is named in messages.

  Raises:
    NLAError: a name is no LoRA matrix of a block of this architecture, or the other half of one is missing.
  """
  # 1. What each name stands for.
  names = sorted(names)
  outside = tuple(name for name in names if _is_outside(name))
  matrices = {name: _parse_name(name, architecture, path) for name in names if name not in outside}
  if not matrices:
    raise NLAError(f"{path} holds no LoRA matrix of a language model's block: fetch it again")

  # 2. One root and both halves of every matrix: else it is a guess what belongs together.
  root_of = {matrix.root: name for name, matrix in matrices.items()}
  first, *others = root_of
  if others:
    raise NLAError(f"{path} holds {root_of[first]} and {root_of[others[0]]}: it adapts two models")
  for name, matrix in matrices.items():
    missing = [matrix.key(half) for half in HALVES if matrix.key(half) not in matrices]
    if missing:
      raise NLAError(
        f"{path} holds {name} without {missing[0]}: the file is incomplete, fetch it again"
      )

  # 3. An image tower stands beside a multimodal model's decoder only.
  if outside and not is_multimodal(first):
    raise NLAError(f"{path} holds {outside[0]}, but its decoder is no multimodal model's")
  return Names(tuple(dict.fromkeys(matrices.values())), first, outside)


def _is_outside(name: str) -> bool:
  """Whether a name is that of a LoRA matrix of an image tower."""
  towers = "|".join(_OUTSIDE)
  form = rf"{re.escape(_PREFIX)}(model\.)?({towers})\..*\.lora_[AB]\.weight"
  return re.fullmatch(form, name) is not None


def _parse_name(name: str, architecture: Architecture, path: Path) -> Matrix:
  """The matrix that a name belongs to. Raises NLAError where it is none of this architecture."""
  roots = "|".join(map(re.escape, ROOTS))
  leaves = {module_of(leaf): leaf for leaf in adapted_leaves(architecture).values()}

  # A number is written in one way only, so that no two names stand for one matrix.
  form = rf"{re.escape(_PREFIX)}({roots})layers\.(0|[1-9]\d*)\.([\w.]+)\.lora_[AB]\.weight"
  match = re.fullmatch(form, name)
  if match is None or match[3] not in leaves:
    raise NLAError(
      f"{path} holds {name}: only lora_A and lora_B of the blocks' {', '.join(leaves)} are read; "
      "merge the adapter into its base with PEFT (merge_and_unload) and load that model"
    )

  layer = int(match[2])
  if layer >= architecture.n_layers:
    raise NLAError(
      f"{path} holds {name}, but the base has blocks 0..{architecture.n_layers - 1}: the adapter "
      "belongs to another model"
    )
  return Matrix(leaves[match[3]], layer, match[1])


def check_shape(found: tuple[int, ...], expected: tuple[int, ...], name: str, path: Path) -> None:
  """Raises NLAError where a matrix in the file has another shape."""
  if tuple(found) != tuple(expected):
    raise NLAError(
      f"{path}: {name} is {list(found)}, expected {list(expected)}: the adapter belongs to another base or "
      "to another adapter_config.json"
    )
