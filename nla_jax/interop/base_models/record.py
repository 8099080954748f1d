"""What is known of a base model once it is found: its architecture, parameters, tokenizer and hashes."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nla_jax.autoencoder.chat import with_chat_template
from nla_jax.errors import NLAError
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
    ends: ids that end an answer by the model's own files, besides the tokenizer's EOS.

  Raises:
    NLAError: one of `ends` is no row of the embedding.
  """

  architecture: Architecture
  params: dict[str, Any] | None
  tokenizer: Any
  source: str
  model_hash: str
  tokenizer_hash: str
  ends: tuple[int, ...] = ()

  def __post_init__(self):
    check_ends(self.ends, self.architecture.vocab_size, self.source)


def check_ends(ends: Iterable[int], rows: int, where: str) -> None:
  """Raises NLAError where an id that ends an answer is none that the model can write: sampling would wait for it.

  Args:
    ends: by the model's own files.
    rows: of the embedding.
    where: the model's name, for the message.
  """
  beyond = [end for end in ends if not 0 <= end < rows]
  if beyond:
    raise NLAError(
      f"{where} says that the token {beyond[0]} ends an answer, and its embedding has {rows} rows: correct "
      "eos_token_id in config.json and generation_config.json, or in the header of the GGUF"
    )


def with_template(found: Pretrained, chat_template: str) -> Pretrained:
  """The model with another chat template; see `nla_jax.autoencoder.chat.with_chat_template`."""
  if not chat_template:
    return found
  tokenizer = with_chat_template(found.tokenizer, chat_template)
  return dataclasses.replace(found, tokenizer=tokenizer, tokenizer_hash=hash_tokenizer(tokenizer))


def hash_tokenizer(tokenizer) -> str:
  """sha256 (hex) of a fast tokenizer's JSON and its chat template, or its several named ones."""
  digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())

  template = tokenizer.chat_template
  # Several named ones; or what is no template at all, which is refused where it is used.
  if not isinstance(template, str | None):
    template = json.dumps(template, sort_keys=True, default=str)
  if template is not None:
    digest.update(template.encode(errors="surrogatepass"))
  return digest.hexdigest()


def hash_file(path: Path) -> str:
  """sha256 (hex) of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
