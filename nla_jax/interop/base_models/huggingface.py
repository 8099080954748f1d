"""Reads a Hugging Face directory (config.json, safetensors, tokenizer) as our parameter tree, and names it back."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError

from nla_jax.errors import NLAError, first_line
from nla_jax.interop.base_models import parameter_names, strays, tensor_files
from nla_jax.interop.base_models.config_files import end_ids, read_config
from nla_jax.interop.base_models.config_json import (
  architecture_from_config,
  config_from_architecture,
)
from nla_jax.interop.base_models.record import Pretrained, hash_tokenizer
from nla_jax.models.architectures import Architecture
from nla_jax.parallel import sharding

__all__ = [
  "ModelFiles",
  "architecture_from_config",
  "config_from_architecture",
  "end_ids",
  "names_in",
  "open_model",
  "read_config",
  "read_directory",
  "read_params",
  "read_tokenizer",
  "root_of",
  "shards_up_to",
  "tensors_of",
]


def read_directory(
  directory: str | Path,
  stop_layer: int | None = None,
  *,
  dtype: str = "float32",
  weights: bool = True,
) -> Pretrained:
  """Reads architecture, weights and tokenizer of an ordinary causal language model.

  Args:
    directory: holds config.json, safetensors and the tokenizer's files.
    stop_layer: K, 0-based; only blocks 0..K are read, without final norm and unembedding.
    dtype: of the parameters, `float32`, `bfloat16` or `auto`, which keeps what is bfloat16 in the files.
    weights: read the parameters too. Without them, all that headers can tell is still checked.

  Raises:
    NLAError: a file is missing or damaged, or config.json and the tensors do not agree.
  """
  directory = Path(directory)
  strays.refuse_adapter(directory)
  model = open_model(directory, architecture_from_config(read_config(directory)), stop_layer)
  tokenizer = read_tokenizer(directory)
  return Pretrained(
    architecture=model.architecture,
    params=model.read(dtype) if weights else None,
    tokenizer=tokenizer,
    source=str(directory),
    model_hash=model.hash(),
    tokenizer_hash=hash_tokenizer(tokenizer),
    ends=end_ids(directory),
  )


def read_tokenizer(directory: Path):
  """Reads a directory's fast tokenizer as tokenizer.json has it; none of the directory's code is run.

  Raises:
    NLAError: there is no fast tokenizer.
  """
  # Seconds to import, which `import nla_jax` should not take.
  from transformers import AutoTokenizer, PreTrainedTokenizerFast

  # For some families AutoTokenizer of transformers 5 splits words by its own code instead of by the file: other ids
  # than those of transformers 4 and of every server that reads the file.
  kind = (
    PreTrainedTokenizerFast if (Path(directory) / "tokenizer.json").is_file() else AutoTokenizer
  )
  try:
    tokenizer = kind.from_pretrained(str(directory), trust_remote_code=False)
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    StrictDataclassError,
  ) as error:
    # transformers raises any of these for a damaged file.
    reason = first_line(error)
    raise NLAError(
      f"no tokenizer could be read from {directory} ({reason}): put the model's tokenizer.json "
      "and tokenizer_config.json there"
    ) from error
  if not tokenizer.is_fast:
    raise NLAError(
      f"{directory} holds a slow tokenizer only: a tokenizer.json is needed, take the model's own"
    )
  return tokenizer


@dataclasses.dataclass(frozen=True)
class ModelFiles:
  """A model's tensors on disk: all are there and have the right shapes, and none is read yet.

  Attributes:
    files: the directory's tensors.
    architecture: of what will be read.
    headless: no final norm and no unembedding will be read.
    name_of: function of (leaf, layer or None); returns the tensor's name in the files.
  """

  files: tensor_files.TensorFiles
  architecture: Architecture
  headless: bool
  name_of: Callable[[parameter_names.Leaf, int | None], str]

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """The shape in the files of every tensor that will be read."""
    leaves = parameter_names.all_leaves(self.architecture, headless=self.headless)
    return {self.name_of(leaf, layer): leaf.file_shape(self.architecture) for leaf, layer in leaves}

  @property
  def dtype(self) -> str:
    """`bfloat16` where every tensor is so in the files, so that nothing is lost by keeping it; else `float32`."""
    kinds = {self.files.entry(name).dtype for name in self.shapes}
    return "bfloat16" if kinds == {"BF16"} else "float32"

  def read(self, dtype: str = "float32") -> dict[str, Any]:
    """Puts the parameters on the devices; see `parameter_names.tree_from_file`."""
    dtype = self.dtype if dtype == "auto" else dtype

    def view(leaf: parameter_names.Leaf, layer: int | None) -> np.ndarray:
      return self.files.view(self.name_of(leaf, layer))

    def label(leaf: parameter_names.Leaf, layer: int | None) -> str:
      return f"{self.files.directory}: {self.name_of(leaf, layer)}"

    return parameter_names.tree_from_file(
      view, self.architecture, headless=self.headless, dtype=dtype, name_of=label
    )

  def hash(self) -> str:
    """sha256 (hex) of the tensors that would be read: their names, kinds, shapes and samples of their bytes."""
    # Samples cost megabytes where the weights are terabytes, and no process reads what only others hold. They
    # suffice: two trainings of one model differ in nearly every number.
    digest = hashlib.sha256()
    for name, shape in sorted(self.shapes.items()):
      digest.update(f"{name} {self.files.entry(name).dtype} {list(shape)}\n".encode())
      digest.update(self.files.sample(name))
    return digest.hexdigest()


def open_model(
  directory: str | Path,
  architecture: Architecture,
  stop_layer: int | None = None,
  *,
  headless: bool = False,
) -> ModelFiles:
  """Finds a model's tensors. Only headers are read, and only of the files that hold what is wanted.

  Args:
    directory: holds the safetensors.
    architecture: of the whole model in the files; their layer count is checked against it.
    stop_layer: K, 0-based; only blocks 0..K and no final norm or unembedding.
    headless: the files have all of `architecture`'s blocks but no final norm or unembedding (an AR).

  Raises:
    NLAError: tensors are missing, of another shape or number of layers, or hold what the decoder here does not have.
  """
  # 1. The layer count. A file with more layers than its config would load without a word, and be another model.
  directory = Path(directory)
  strays.check_one_form(directory)
  files = tensor_files.TensorFiles(directory)
  root = root_of(files.names, directory)
  found = {layer for layer in (_layer(name, root) for name in files.names) if layer is not None}
  if found != set(range(architecture.n_layers)):
    raise NLAError(
      f"config.json of {directory} says {architecture.n_layers} layers, the safetensors hold "
      f"{len(found)}: set num_hidden_layers to the files' number or fetch the model again"
    )

  # 2. What is wanted of it.
  whole, is_ar = architecture, headless
  if stop_layer is not None:
    if not 0 <= stop_layer < architecture.n_layers:
      raise NLAError(
        f"layer {stop_layer} was asked for, but {directory} has blocks "
        f"0..{architecture.n_layers - 1}"
      )
    architecture, headless = architecture.lower(stop_layer + 1), True

  # 3. Its tensors, by the names that these files give them.
  rename = names_in(files.names, directory)

  def name_of(leaf: parameter_names.Leaf, layer: int | None) -> str:
    return rename(leaf.hf.format(layer=layer))

  model = ModelFiles(files, architecture, headless, name_of)
  files.check(model.shapes)

  # 4. Tensors that no table names, of all blocks: those that are left out are of the same model.
  strays.passed_over(files.names, root, whole, directory, is_ar=is_ar)
  if not headless:
    strays.check_tied(files, architecture, root, whole=True)
  return model


def read_params(
  directory: str | Path,
  architecture: Architecture,
  stop_layer: int | None = None,
  *,
  headless: bool = False,
  dtype: str = "float32",
) -> dict[str, Any]:
  """Puts the parameters of `open_model`'s model on the devices; see `parameter_names.tree_from_file`."""
  return open_model(directory, architecture, stop_layer, headless=headless).read(dtype)


def shards_up_to(shard_of: dict[str, str], stop_layer: int, source: str | Path) -> list[str]:
  """The files, sorted, that hold the embedding and blocks 0..K.

  Args:
    shard_of: {tensor: file}, as an index says.
    stop_layer: K, 0-based.
    source: what is named in messages.
  """
  root, blocks = root_of(set(shard_of), source), range(stop_layer + 1)
  return sorted(
    {
      shard
      for name, shard in shard_of.items()
      if name == f"{root}embed_tokens.weight" or _layer(name, root) in blocks
    }
  )


def names_in(names: Iterable[str], directory: str | Path) -> Callable[[str], str]:
  """Returns a function from a tensor's usual name to its name in these files.

  Args:
    names: of all tensors in the files.
    directory: what is named in messages.

  Raises:
    NLAError: there is not exactly one embedding.
  """
  names = set(names)
  root = root_of(names, directory)
  heads = [name for name in names if name.endswith("lm_head.weight")]

  def rename(name: str) -> str:
    if name.startswith("model."):
      return root + name.removeprefix("model.")
    return (heads or [name])[0]

  return rename


def _layer(name: str, root: str) -> int | None:
  """The block that a tensor belongs to, if any."""
  match = re.match(re.escape(root) + r"layers\.(\d+)\.", name)
  return int(match[1]) if match else None


def root_of(names: set[str], directory: str | Path) -> str:
  """What stands before `embed_tokens`: `model.`, or `language_model.model.` in a multimodal file."""
  # Two embeddings would mean two decoders in one file, and a guess which of them is the model.
  found = sorted(name for name in names if name.endswith("embed_tokens.weight"))
  if len(found) != 1:
    raise NLAError(
      f"{directory} should hold exactly one tensor named *embed_tokens.weight, it holds "
      f"{', '.join(found) or 'none'}: it is not a decoder that is supported here"
    )
  return found[0].removesuffix("embed_tokens.weight")


def tensors_of(
  params: dict[str, Any], architecture: Architecture, *, headless: bool = False
) -> Iterator[tensor_files.Tensor]:
  """Yields the tree's tensors under Hugging Face's names; each is made only when it is written.

  Raises:
    NLAError: a parameter is missing or has another shape than the architecture says.
  """
  for leaf in parameter_names.model_leaves(architecture, headless=headless):
    array = _checked(params, leaf, leaf.shape(architecture))
    yield tensor_files.Tensor(
      leaf.hf,
      leaf.file_shape(architecture),
      lambda leaf=leaf, array=array: leaf.to_file(_host(array), architecture),
    )

  # Block by block, so that whoever reads blocks 0..K needs the first shards only.
  n, leaves = architecture.n_layers, parameter_names.block_leaves(architecture)
  layers = params.get("layers", {})
  arrays = {leaf.ours: _checked(layers, leaf, (n, *leaf.shape(architecture))) for leaf in leaves}
  for layer in range(n):
    for leaf in leaves:
      yield tensor_files.Tensor(
        leaf.hf.format(layer=layer),
        leaf.file_shape(architecture),
        lambda leaf=leaf, layer=layer: leaf.to_file(_host(arrays[leaf.ours][layer]), architecture),
      )


def _checked(tree: dict[str, Any], leaf: parameter_names.Leaf, shape: tuple[int, ...]):
  """A leaf of the tree. Raises NLAError where it is missing or has another shape."""
  if leaf.ours not in tree:
    raise NLAError(
      f"the parameters to be written lack {leaf.ours!r}: they belong to another architecture"
    )
  if tuple(tree[leaf.ours].shape) != shape:
    raise NLAError(
      f"the parameter {leaf.ours!r} to be written has shape {list(tree[leaf.ours].shape)}, the "
      f"architecture says {list(shape)}"
    )
  return tree[leaf.ours]


def _host(array) -> np.ndarray:
  found = sharding.fetch(array)
  # A pair whose files are narrow keeps its matrices as bits on CPUs; see `models.parameters.kept_narrow`.
  if found.dtype == np.uint16:
    found = found.view(tensor_files.DTYPES["bfloat16"])
  return found.astype(np.float32, copy=False)
