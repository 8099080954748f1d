"""A Hugging Face directory (config.json, safetensors, tokenizer) to our parameter tree, and back."""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.interop import name_table, tensor_files
from nla_jax.interop.configuration import architecture_from_config, config_from_architecture
from nla_jax.interop.pretrained import Pretrained, hash_file, hash_tokenizer
from nla_jax.models.architectures import Architecture

__all__ = ["architecture_from_config", "config_from_architecture", "hash_weights", "read_config",
           "read_directory", "read_params", "read_tokenizer", "tensors_of"]


def read_directory(directory: str | Path, stop_layer: int | None = None) -> Pretrained:
  """Architecture, weights and tokenizer of an ordinary causal language model.

  Args:
    directory: holds config.json, safetensors and the tokenizer's files.
    stop_layer: K, 0-based; only blocks 0..K are read, without final norm and unembedding.
  """
  directory = Path(directory)
  architecture = architecture_from_config(read_config(directory))
  tokenizer = read_tokenizer(directory)
  params = read_params(directory, architecture, stop_layer)
  return Pretrained(
    architecture=architecture if stop_layer is None else architecture.lower(stop_layer + 1), params=params,
    tokenizer=tokenizer, source=str(directory), model_hash=hash_weights(directory),
    tokenizer_hash=hash_tokenizer(tokenizer))


def read_config(directory: Path) -> dict[str, Any]:
  """config.json as it stands. Raises NLAError if it is missing or no JSON object."""
  path = Path(directory) / "config.json"
  if not path.is_file():
    raise NLAError(f"no config.json in {directory}: give the directory of a Hugging Face model")
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise NLAError(f"{path} is no JSON ({error}): fetch it again") from error
  if not isinstance(config, dict):
    raise NLAError(f"{path} is no JSON object: fetch it again")
  return config


def read_tokenizer(directory: Path):
  """A directory's fast tokenizer, as tokenizer.json has it; none of its code is run. Raises NLAError if it has none."""
  from transformers import AutoTokenizer, PreTrainedTokenizerFast

  # For some families AutoTokenizer of transformers 5 splits words by its own code instead of by the file: other ids
  # than those of transformers 4 and of every server that reads the file.
  kind = PreTrainedTokenizerFast if (Path(directory) / "tokenizer.json").is_file() else AutoTokenizer
  try:
    tokenizer = kind.from_pretrained(str(directory), trust_remote_code=False)
  except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise NLAError(f"no tokenizer could be read from {directory} ({reason}): put the model's tokenizer.json "
                   "and tokenizer_config.json there") from error
  if not tokenizer.is_fast:
    raise NLAError(f"{directory} holds a slow tokenizer only: a tokenizer.json is needed, take the model's "
                   "own")
  return tokenizer


def hash_weights(directory: Path) -> str:
  """sha256 (hex) over the sha256 of every weight file, in the order of their names."""
  files = tensor_files.weight_files(Path(directory))
  with ThreadPoolExecutor(max_workers=8) as pool:  # hashing a file releases the GIL
    digests = list(pool.map(hash_file, files))
  return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_params(directory: str | Path, architecture: Architecture, stop_layer: int | None = None, *,
                headless: bool = False) -> dict[str, Any]:
  """Reads the parameter tree from safetensors, tensor by tensor.

  Args:
    directory: holds the safetensors.
    architecture: of the whole model in the files; their layer count is checked against it.
    stop_layer: K, 0-based; only blocks 0..K are read and no final norm or unembedding.
    headless: the files have all of `architecture`'s blocks but no final norm or unembedding (an AR).

  Returns:
    The tree, float32 numpy, block parameters stacked with a leading layer axis.

  Raises:
    NLAError: tensors are missing, of another shape, or of another number of layers.
  """
  directory = Path(directory)
  with tensor_files.open_tensors(directory) as files:
    root = _root(files.names, directory)
    in_block = re.compile(re.escape(root) + r"layers\.(\d+)\.")
    found = {int(match[1]) for name in files.names if (match := in_block.match(name))}
    if found != set(range(architecture.n_layers)):
      raise NLAError(f"config.json of {directory} says {architecture.n_layers} layers, the safetensors hold "
                     f"{len(found)}: set num_hidden_layers to the files' number or fetch the model again")
    if stop_layer is not None:
      if not 0 <= stop_layer < architecture.n_layers:
        raise NLAError(f"layer {stop_layer} was asked for, but {directory} has blocks "
                       f"0..{architecture.n_layers - 1}")
      architecture = architecture.lower(stop_layer + 1)
      headless = True
    heads = [name for name in files.names if name.endswith("lm_head.weight")]

    def read(leaf: name_table.Leaf, layer: int | None) -> np.ndarray:
      name = leaf.hf.format(layer=layer)
      name = root + name.removeprefix("model.") if name.startswith("model.") else (heads or [name])[0]
      return files.read(name, leaf.file_shape(architecture))

    return name_table.tree_from_file(read, architecture, headless=headless)


def _root(names: set[str], directory: Path) -> str:
  """What stands before `embed_tokens`: `model.`, or `language_model.model.` in a multimodal file."""
  found = sorted(name for name in names if name.endswith("embed_tokens.weight"))
  if len(found) != 1:
    raise NLAError(f"{directory} should hold exactly one tensor named *embed_tokens.weight, it holds "
                   f"{', '.join(found) or 'none'}: it is not a decoder that is supported here")
  return found[0].removesuffix("embed_tokens.weight")


def tensors_of(params: dict[str, Any], architecture: Architecture, *,
               headless: bool = False) -> Iterator[tensor_files.Tensor]:
  """The tree as tensors with Hugging Face's names, each made only when it is written.

  Raises:
    NLAError: a parameter is missing or has another shape than the architecture says.
  """
  for leaf in name_table.model_leaves(architecture, headless=headless):
    array = _checked(params, leaf, leaf.shape(architecture))
    yield tensor_files.Tensor(leaf.hf, leaf.file_shape(architecture),
                              lambda leaf=leaf, array=array: leaf.to_file(_host(array), architecture))
  n, leaves = architecture.n_layers, name_table.block_leaves(architecture)
  layers = params.get("layers", {})
  arrays = {leaf.ours: _checked(layers, leaf, (n, *leaf.shape(architecture))) for leaf in leaves}
  for layer in range(n):
    for leaf in leaves:
      yield tensor_files.Tensor(
        leaf.hf.format(layer=layer), leaf.file_shape(architecture),
        lambda leaf=leaf, layer=layer: leaf.to_file(_host(arrays[leaf.ours][layer]), architecture))


def _checked(tree: dict[str, Any], leaf: name_table.Leaf, shape: tuple[int, ...]):
  if leaf.ours not in tree:
    raise NLAError(f"the parameters to be written lack {leaf.ours!r}: they belong to another architecture")
  if tuple(tree[leaf.ours].shape) != shape:
    raise NLAError(f"the parameter {leaf.ours!r} to be written has shape {list(tree[leaf.ours].shape)}, the "
                   f"architecture says {list(shape)}")
  return tree[leaf.ours]


def _host(array) -> np.ndarray:
  return np.asarray(array, dtype=np.float32)
