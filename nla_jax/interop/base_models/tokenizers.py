"""Loads a model's tokenizer, and writes one so that transformers 4 and 5 both read it as it is meant."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nla_jax.interop.base_models import find, gguf, huggingface, random_model
from nla_jax.interop.base_models.gguf_tokenizer import tokenizer_from_header

# transformers 5 names its own backend class, which transformers 4 does not have.
_CLASSES_OF_BOTH = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def emits_bos(tokenizer) -> bool:
  """Whether the tokenizer has a BOS and puts it first when special tokens are asked for."""
  if tokenizer.bos_token_id is None:
    return False

  # A text tells, not the settings: SmolLM2 names a BOS that it never emits.
  ids = tokenizer("x", add_special_tokens=True)["input_ids"]
  return bool(ids) and ids[0] == tokenizer.bos_token_id


def save_tokenizer(tokenizer, directory: Path, *, padding_side: str | None = None) -> None:
  """Writes the tokenizer and its chat template; the tokenizer itself is left as it is.

  Args:
    tokenizer: a fast tokenizer.
    directory: an existing folder.
    padding_side: `left` or `right`, written instead of the tokenizer's own.
  """
  directory = Path(directory)
  tokenizer.save_pretrained(str(directory))

  changes: dict[str, Any] = {}
  if padding_side is not None:
    changes["padding_side"] = padding_side
  if tokenizer.bos_token_id is not None and not emits_bos(tokenizer):
    # The reference's AR refuses a tokenizer whose BOS is set but not emitted. The token itself stays special.
    changes["bos_token"] = None
  _update(directory / "tokenizer_config.json", lambda config: _both_versions(config | changes))

  # Padding and truncation that some earlier call left switched on would shorten every text there.
  _update(directory / "tokenizer.json", lambda state: state | {"padding": None, "truncation": None})

  # Written by transformers 4 only; it would bring the BOS back.
  legacy = directory / "special_tokens_map.json"
  if legacy.is_file() and "bos_token" in changes:
    _update(legacy, _without_bos)


def _without_bos(tokens: dict[str, Any]) -> dict[str, Any]:
  return {name: token for name, token in tokens.items() if name != "bos_token"}


def _both_versions(config: dict[str, Any]) -> dict[str, Any]:
  """The tokenizer's config in the form that transformers 4 and 5 both read."""
  config = dict(config)
  written = config.get("tokenizer_class")
  config["tokenizer_class"] = _CLASSES_OF_BOTH.get(written, written)
  if isinstance(config.get("extra_special_tokens"), list):
    config["additional_special_tokens"] = config.pop("extra_special_tokens")

  # These say how this process loaded the tokenizer, not what it is.
  for key in ("backend", "is_local", "local_files_only"):
    config.pop(key, None)
  return config


def _update(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
  """Rewrites a JSON file as `change` of what it holds."""
  content = change(json.loads(path.read_text(encoding="utf-8")))
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tokenizer(name: str):
  """Loads the tokenizer of a model without its weights.

  Args:
    name: as for `nla_jax.interop.base_models.load.load_pretrained`.

  Raises:
    NLAError: nothing is found under the name, or it has no fast tokenizer.
  """
  located = find.locate(name)
  if located.kind == "random":
    return random_model.byte_tokenizer()
  if located.kind == "gguf":
    return tokenizer_from_header(gguf.read_header(located.path))

  # The weights of a hub model stay there: only its small files are fetched.
  return huggingface.read_tokenizer(located.path or find.download(name, weights=False))
