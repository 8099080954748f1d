"""What is known of a base model once it is found: its architecture, parameters, tokenizer and hashes."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from nla_jax.models.architectures import Architecture


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model as it was found.

  Attributes:
    architecture: describes `params`; it has K+1 blocks where the model was loaded only up to block K.
    params: tree of `jax.Array`s, laid out for the mesh in context, block parameters stacked along a leading layer
      axis; None where the weights were not asked for.
    tokenizer: a `transformers` fast tokenizer.
    source: the name that was asked for.
    model_hash: sha256 (hex) of what identifies the weights, of blocks 0..K alone where only these were loaded.
    tokenizer_hash: sha256 (hex), see `hash_tokenizer`.
  """

  architecture: Architecture
  params: dict[str, Any] | None
  tokenizer: Any
  source: str
  model_hash: str
  tokenizer_hash: str


def hash_tokenizer(tokenizer) -> str:
  """sha256 (hex) of a fast tokenizer's JSON and its chat template."""
  digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())

  # A dict of several templates counts as none: only one text is ever rendered here.
  if isinstance(tokenizer.chat_template, str):
    digest.update(tokenizer.chat_template.encode())
  return digest.hexdigest()


def hash_file(path: Path) -> str:
  """sha256 (hex) of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
