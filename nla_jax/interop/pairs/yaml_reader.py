"""What the sidecars of models and of data files share: reading YAML key by key, the marker's ids, writing.

`docs/interchange.md` says what the keys mean.
"""

import dataclasses
import datetime
import math
import string
from pathlib import Path
from typing import Any

import yaml

from nla_jax.autoencoder.prompts import AR_FIELD, AV_FIELD
from nla_jax.errors import NLAError, first_line, shown

CREATED_BY = "nla_jax"
TEMPLATES = "prompt_templates"


def utc_now() -> str:
  """The time as ISO 8601 in UTC, to the second."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
  """The ids that the live tokenizer must give.

  Attributes:
    injection_char: the marker.
    injection_token_id: its one id.
    left_id: the id before it in the AV's prompt.
    right_id: the id after it.
    suffix_ids: ids at the end of every AR input; None where a file does not say.
  """

  injection_char: str
  injection_token_id: int
  left_id: int
  right_id: int
  suffix_ids: tuple[int, ...] | None = None


def template_from_file(text: str) -> str:
  """A template as files have it, where braces are doubled for `str.format`, as it stands otherwise.

  One that `str.format` could not read is taken as it stands: it was filled in otherwise.
  """
  try:
    parts = list(string.Formatter().parse(text))
  except ValueError:  # a lone brace
    return text

  # No field but these two, and those plain.
  fields = {f"{{{name}}}" for _, name, _, _ in parts if name is not None}
  if not fields <= {AV_FIELD, AR_FIELD} or any(spec or how for _, _, spec, how in parts):
    return text
  return "".join(words + ("" if name is None else f"{{{name}}}") for words, name, _, _ in parts)


def template_to_file(template: str, field: str) -> str:
  """A template with its braces doubled, but for those of its one field: readers there use `str.format`."""
  return field.join(part.replace("{", "{{").replace("}", "}}") for part in template.split(field))


SCHEMAS = (1, 2)  # of sidecars


class YamlReader:
  """Looks keys up in a parsed file and raises an NLAError that names the file and the key."""

  def __init__(self, path: Path):
    self.path = path

    try:
      self.data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
      raise NLAError(
        f"no sidecar at {path}: ask whoever made the checkpoint for its nla_meta.yaml"
      ) from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
      # YAML's messages quote the file over several lines; the first says what is wrong.
      reason = first_line(error)
      raise NLAError(
        f"{path} cannot be read as YAML ({reason}): take the file from the checkpoint again"
      ) from error

    if not isinstance(self.data, dict):
      raise NLAError(f"{path} is no mapping: take the file from the checkpoint again")

  def refuse_unknown_schema(self) -> None:
    """Raises NLAError where the file says a schema that is not known here; one that says none is of the first."""
    found = self.data.get("schema_version", SCHEMAS[0])
    if type(found) is not int or found not in SCHEMAS:
      known = " and ".join(map(str, SCHEMAS))
      raise NLAError(
        f"{self.path} says schema_version {shown(found)}, versions {known} are read: update nla_jax, or take a "
        "checkpoint of one of these"
      )

  def get(
    self, *spellings: str, kind: type | tuple[type, ...] = object, required: bool = True
  ) -> Any:
    """Returns the value at the first of the dotted `spellings` that is there and not null.

    Args:
      spellings: such as `prompt_templates.av`, one level of the mapping a dot.
      kind: of the value.
      required: raise NLAError where none is there; None is returned otherwise.

    Raises:
      NLAError: the value is of another kind, or it is required and missing.
    """
    for spelling in spellings:
      value = self.data
      for key in spelling.split("."):
        value = value.get(key) if isinstance(value, dict) else None
      if value is None:
        continue

      # A bool passes for an int in Python, but `layer_index: true` is a mistake.
      if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
        raise NLAError(
          f"{self.path}: {spelling} is {value!r}, which is not of the expected type: correct it"
        )
      is_template = spelling.startswith(f"{TEMPLATES}.") and isinstance(value, str)
      return template_from_file(value) if is_template else value

    if required:
      raise NLAError(
        f"{self.path} lacks {' or '.join(spellings)}, which is needed and never guessed: add it"
      )
    return None

  def agreed(self, *spellings: str, kind: type, required: bool) -> Any:
    """As `get`, but all `spellings` that are there must hold the same value."""
    found = {name: self.get(name, kind=kind, required=False) for name in spellings}
    said = {name: value for name, value in found.items() if value is not None}

    # Tools differ in which spelling they read: a file that says two things is another model for each of them.
    if len(set(said.values())) > 1:
      raise NLAError(
        f"{self.path} contradicts itself: "
        + ", ".join(f"{name} is {value!r}" for name, value in said.items())
        + "; leave the right one"
      )
    return self.get(*spellings, kind=kind, required=required)

  def layer(self, *, required: bool) -> int | None:
    """Returns K, the 0-based block whose output is explained; see `docs/interchange.md`."""
    layer = self.agreed(
      "critic.extraction_layer_index", "extraction_layer_index", kind=int, required=False
    )

    # The first schema called K itself so. Beside the newer key some files mean the K+1 blocks by it.
    old = self.get("critic.num_hidden_layers", kind=int, required=False)
    if layer is None:
      return self.get(
        "critic.extraction_layer_index",
        "extraction_layer_index",
        "critic.num_hidden_layers",
        kind=int,
        required=required,
      )
    if old is not None and old not in (layer, layer + 1):
      raise NLAError(
        f"{self.path} contradicts itself: extraction_layer_index is {layer}, critic.num_hidden_layers "
        f"{old}; leave the right one"
      )
    return layer

  def refuse_unless(self, key: str, allowed: str, what: str) -> None:
    """Raises NLAError where a key is there with another value than `allowed`; `what` says what that would ask for."""
    value = self.get(key, required=False)
    if value is not None and value != allowed:
      raise NLAError(
        f"{self.path} sets {key} to {value!r}, {what}, which is not done here; only {allowed!r} is "
        "supported: take another checkpoint"
      )

  def names(self, key: str) -> tuple[str, ...]:
    """Returns a list of names; one name alone is a list of one, and a missing key an empty list."""
    value = self.get(key, required=False)
    if value is None:
      return ()

    # Some files hold a single name without the list around it.
    return tuple(str(item) for item in value) if isinstance(value, list) else (str(value),)

  def scale(self, key: str, d_model: int, *, required: bool) -> float | None:
    """Returns a norm, which a file may also give as the word `sqrt_d_model`. Raises NLAError if it is not positive."""
    value = self.get(key, kind=(int, float, str), required=required)
    if value is None:
      return None
    if value == "sqrt_d_model":
      return math.sqrt(d_model)

    # YAML reads 1e2 as text.
    try:
      scale = float(value)
    except ValueError:
      scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
      raise NLAError(f"{self.path}: {key} is {value!r}, expected a positive number: correct it")
    return scale

  def ids(self, key: str) -> dict[str, list[int]] | None:
    """Returns lists of token ids by name; None where the key is missing. Raises NLAError where they are no ids."""
    found = self.get(key, kind=dict, required=False)
    if found is None:
      return None

    for name, ids in found.items():
      if not (isinstance(ids, list) and all(type(token) is int for token in ids)):
        raise NLAError(f"{self.path}: {key}.{name} is no list of token ids: correct it")
    return found

  def tokens(self, *, required: bool) -> Tokens | None:
    """Returns the ids below `tokens`; None where one of them is missing and they are not required."""
    fields = {
      "injection_char": str,
      "injection_token_id": int,
      "injection_left_neighbor_id": int,
      "injection_right_neighbor_id": int,
    }
    found = {
      key: self.get(f"tokens.{key}", kind=kind, required=required) for key, kind in fields.items()
    }
    if any(value is None for value in found.values()):
      return None

    # Null or absent in files that hold no AR inputs.
    suffix = self.get("tokens.critic_suffix_ids", kind=list, required=False)
    return Tokens(
      injection_char=found["injection_char"],
      injection_token_id=found["injection_token_id"],
      left_id=found["injection_left_neighbor_id"],
      right_id=found["injection_right_neighbor_id"],
      suffix_ids=tuple(suffix) if suffix else None,
    )


def tokens_mapping(tokens: Tokens | None) -> dict[str, Any]:
  """Returns the ids as a file has them, {"tokens": {…}}; nothing where there are none."""
  if tokens is None:
    return {}

  return {
    "tokens": {
      "injection_char": tokens.injection_char,
      "injection_token_id": tokens.injection_token_id,
      "injection_left_neighbor_id": tokens.left_id,
      "injection_right_neighbor_id": tokens.right_id,
      "critic_suffix_ids": None if tokens.suffix_ids is None else list(tokens.suffix_ids),
    }
  }


def write_yaml(path: Path, mapping: dict[str, Any]) -> Path:
  """Writes a mapping in its own order, characters unescaped. Raises NLAError when it cannot be written."""
  if TEMPLATES in mapping:
    fields = {"actor": AV_FIELD, "critic": AR_FIELD}
    escaped = {
      role: template_to_file(text, fields[role]) for role, text in mapping[TEMPLATES].items()
    }
    mapping = mapping | {TEMPLATES: escaped}
  try:
    # The width keeps each template on one line; the marker stays readable unescaped.
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=1000)
    path.write_text(text, encoding="utf-8")
  except OSError as error:
    raise NLAError(
      f"{path} could not be written ({error.strerror}): free some space or choose another directory"
    ) from error
  except yaml.representer.RepresenterError as error:
    raise NLAError(
      f"{path}: only plain numbers, strings, lists and mappings can stand in a sidecar, got "
      f"{error.args[-1]!r}"
    ) from error
  return path
