"""Reads the JSON files beside a model's weights, and what they say together."""

import json
from pathlib import Path
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.config_json import text_config


def read_config(directory: Path, name: str = "config.json") -> dict[str, Any]:
  """Reads config.json, or another such file, as it stands. Raises NLAError if it is missing or no JSON object."""
  path = Path(directory) / name
  if not path.is_file():
    raise NLAError(f"no {name} in {directory}: give the directory of a Hugging Face model")
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise NLAError(f"{path} is no JSON ({error}): fetch it again") from error
  if not isinstance(config, dict):
    raise NLAError(f"{path} is no JSON object: fetch it again")
  return config


def end_ids(directory: Path) -> tuple[int, ...]:
  """The ids that end an answer by config.json or generation_config.json; one file may name those that the other lacks.

  Raises:
    NLAError: one of the files is no JSON object.
  """
  configs = []
  for name in ("config.json", "generation_config.json"):
    if (Path(directory) / name).is_file():
      configs.append(read_config(directory, name))

  # One id or a list; of a multimodal wrapper the text part may name it.
  found: list[int] = []
  for config in (*configs, *(text_config(config) for config in configs)):
    ids = config.get("eos_token_id")
    found += [one for one in (ids if isinstance(ids, list) else [ids]) if type(one) is int]
  return tuple(dict.fromkeys(found))
