"""Describes a GGUF file from its header."""

from collections import Counter
from pathlib import Path

import numpy as np

from nla_jax.autoencoder.chat import with_chat_template
from nla_jax.interop.base_models import gguf, parameter_names, strays
from nla_jax.interop.base_models.gguf_files import open_gguf
from nla_jax.interop.base_models.gguf_tokenizer import end_ids, tokenizer_from_header
from nla_jax.interop.describe_models import (
  Description,
  count,
  note_absent,
  note_prompts,
  of_architecture,
  of_tokenizer,
  size_in_words,
)


def describe_gguf(path: Path, chat_template: str = "") -> Description:
  """Describes a GGUF file from its header; `chat_template` as for `describe_model`."""
  found, architecture = Description(str(path), "a GGUF file"), None
  with found.noting():
    # 1. What the header says of the file.
    opened = open_gguf(path)
    header, tensors = opened.header, opened.tensors
    if len(opened.files) > 1:
      found.kind += f" in {len(opened.files)} parts"
    found.facts["name"] = header.get("general.name")
    found.facts["family"] = header.get("general.architecture")
    kinds = Counter(tensor.tensor_type.name for tensor in tensors.values())
    found.facts["stored as"] = ", ".join(f"{n} tensors {kind}" for kind, n in kinds.most_common())
    found.facts["parameters"] = count(
      sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    )
    found.facts["size"] = size_in_words(opened.size)
    found.facts["licence"] = header.get("general.license")

    # 2. What it says of the model, and whether the model's tensors are there.
    with found.noting():
      architecture = gguf.architecture_from_header(header, tensors, path)
      found.facts |= of_architecture(architecture)
      leaves = parameter_names.all_leaves(architecture, headless=False)
      wanted = [leaf.gguf.format(layer=layer) for leaf, layer in leaves]
      note_absent(found, [name for name in wanted if name not in tensors])
      others = strays.passed_over_gguf(tensors, architecture, path)
      found.facts["not read"] = (
        f"{len(others)} tensor(s), the first is {others[0]}" if others else None
      )

    # 3. The tokenizer: a model of a family that is not known may still have one that is.
    with found.noting():
      tokenizer = with_chat_template(tokenizer_from_header(header), chat_template)
      found.facts |= of_tokenizer(tokenizer)
      note_prompts(found, tokenizer, architecture, end_ids(header))
  return found
