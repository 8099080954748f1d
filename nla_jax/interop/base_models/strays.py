"""What lies in a model's directory beside the tensors that its family's table names.

A tensor that the decoder here does not have is passed over by every reader that asks for tensors by name, and the
result is another model. So each is looked at: those of other parts (an image tower) are named, the others are refused.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import parameter_names, tensor_files
from nla_jax.interop.base_models.tensor_files import TensorFiles
from nla_jax.models.architectures import Architecture

ADAPTER_CONFIG = "adapter_config.json"
# In it another public trainer keeps an AR's adapters and head, see `pairs.lora_files`.
AR_FILE = "ar_lora_value_head.safetensors"
_ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin", AR_FILE)
# Constants of the rotary embedding, which older files keep beside the weights.
_CONSTANTS = re.compile(r"(^|\.)rotary_emb\.\w+$")
_HEAD = re.compile(r"(^|\.)lm_head\.")
# In GGUF: what the decoder's tensors begin with, and what is read as the rope's scaling.
_GGUF_DECODER = ("blk.", "output", "token_embd", "rope_")
_ROPE_DIVISORS = "rope_freqs.weight"
_ROWS = 4096  # of a vocabulary, compared at once


def adapter_files(directory: Path) -> list[str]:
  """The names of an adapter's files that lie in a directory."""
  return [name for name in _ADAPTER_FILES if (directory / name).is_file()]


def has_whole_weights(directory: Path) -> bool:
  """Whether a directory holds a model's own weights."""
  return any(directory.glob("model*.safetensors")) or (directory / tensor_files.INDEX).is_file()


def refuse_adapter(directory: Path) -> None:
  """Raises NLAError where a directory that is to be a whole model's holds an adapter.

  `transformers` adds such an adapter to the weights beside it, or to its base, without being asked.
  """
  # Which of the two is the model cannot be told: a merge may have left the adapter behind, or never happened.
  found = adapter_files(directory)
  if found and has_whole_weights(directory):
    raise NLAError(
      f"{directory} holds whole weights and a LoRA adapter ({found[0]}), and does not say whether the one is in the "
      "other: move the adapter to a directory of its own, or merge it (merge_and_unload) and leave the merged weights"
    )

  if found:
    config = files.read_json(directory / ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    raise NLAError(
      f"{directory} is a LoRA adapter, not a whole model: name its base ({base or 'its config names none'}) as the "
      "model and this directory as config.model_adapter, or merge it into its base first (merge_and_unload)"
    )


def passed_over(
  names: Iterable[str], root: str, architecture: Architecture, directory: Path, *, is_ar: bool
) -> list[str]:
  """The tensors that are not read and change nothing that is computed here, sorted.

  Args:
    names: of all tensors in the files.
    root: what stands before `embed_tokens` in them.
    architecture: of the whole model in the files.
    directory: what is named in messages.
    is_ar: the files have no final norm and no unembedding.

  Raises:
    NLAError: a tensor would change the result if it were read.
  """
  leaves = parameter_names.all_leaves(architecture, headless=is_ar)
  read = {root + leaf.hf.format(layer=layer).removeprefix("model.") for leaf, layer in leaves}
  others = sorted(set(names) - read)

  # The one of them that a person can mend has a message of its own.
  harmful = [name for name in others if _changes(name, root, is_ar)]

  if is_ar and f"{root}norm.weight" in harmful:
    raise NLAError(
      f"{directory} holds the final norm {root}norm.weight, which an AR does not have: its reconstructions are others "
      "with it; remove the tensor where the AR was trained without it"
    )
  if harmful:
    raise NLAError(
      f"{directory} holds {len(harmful)} tensor(s) that a {architecture.family} decoder here does not have, the first "
      f"is {harmful[0]}: without them it would be another model; take the checkpoint that its config.json describes"
    )
  return others


def _changes(name: str, root: str, is_ar: bool) -> bool:
  """Whether a tensor that is not read belongs to what is computed."""
  if _CONSTANTS.search(name):
    return False
  # A head's own weight is compared with the embedding, see `check_tied`.
  if _HEAD.search(name):
    return not is_ar and not name.endswith("lm_head.weight")
  return name.startswith(root)


def passed_over_gguf(names: Iterable[str], architecture: Architecture, path: Path) -> list[str]:
  """As `passed_over`, of a whole model's tensors in a GGUF file."""
  leaves = parameter_names.all_leaves(architecture, headless=False)
  read = {leaf.gguf.format(layer=layer) for leaf, layer in leaves}
  others = sorted(set(names) - read - {_ROPE_DIVISORS})

  # Images and the like come under other names.
  harmful = [name for name in others if name.startswith(_GGUF_DECODER)]
  if harmful:
    raise NLAError(
      f"{path.name} holds {len(harmful)} tensor(s) that a {architecture.family} decoder here does not have, the first "
      f"is {harmful[0]}: without them it would be another model; use the model's Hugging Face directory instead"
    )
  return others


def check_tied(files: TensorFiles, architecture: Architecture, root: str, *, whole: bool) -> None:
  """Raises NLAError where config.json ties the unembedding to the embedding and the files hold another one.

  Args:
    files: the model's.
    architecture: of the whole model.
    root: what stands before `embed_tokens`.
    whole: compare every number; else samples of the two.
  """
  heads = [name for name in files.names if name.endswith("lm_head.weight")]
  if not architecture.tied or not heads:
    return

  head, embedding = heads[0], f"{root}embed_tokens.weight"
  same = files.entry(head).shape == files.entry(embedding).shape
  # Files keep the two in the same kind of number, so samples of their bytes can be compared.
  if same and whole:
    pair = files.view(head), files.view(embedding)
    same = all(_equal_rows(*pair, start) for start in range(0, len(pair[0]), _ROWS))
  elif same and files.entry(head).dtype == files.entry(embedding).dtype:
    same = files.sample(head) == files.sample(embedding)

  if not same:
    raise NLAError(
      f"{files.directory}: config.json says tie_word_embeddings, and {head} is not {embedding}: readers differ in "
      "which of the two gives the words; set tie_word_embeddings to false, or remove the tensor that is not the model's"
    )


def _equal_rows(first: np.ndarray, second: np.ndarray, start: int) -> bool:
  rows = slice(start, start + _ROWS)
  return np.array_equal(first[rows].astype(np.float32), second[rows].astype(np.float32))


def check_one_form(directory: Path) -> None:
  """Raises NLAError where a directory holds a tensor twice: in two files, or in one and in shards of an index."""
  index, single = directory / tensor_files.INDEX, directory / "model.safetensors"
  if index.is_file():
    if single.is_file() and single.name not in tensor_files.read_index(index).values():
      raise NLAError(
        f"{directory} holds {single.name} and {index.name}, which does not name it: readers differ in which they "
        "take; remove the one that is not the model's"
      )
    return

  # Without an index, whichever file is read last would win.
  holders: dict[str, Path] = {}
  for path in tensor_files.weight_files(directory):
    for name in tensor_files.read_header(path):
      other = holders.setdefault(name, path)
      if other != path:
        raise NLAError(
          f"{directory} holds {name} in {other.name} and in {path.name}: leave the file that is the model's"
        )
