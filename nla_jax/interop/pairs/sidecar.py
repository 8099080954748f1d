"""The sidecar `nla_meta.yaml`: what makes a directory of weights an AV or an AR, and a parquet file NLA data.

Files say actor/critic or av/ar, and carry keys of their own. Both spellings are read and unknown keys are
passed over; what is needed and missing is an error, and so are two spellings that say different things and
settings that change the computation in a way that is not done here. We write the form that the reference code
reads, with numbers.
"""

import dataclasses
import datetime
import math
from pathlib import Path
from typing import Any

import yaml

from nla_jax.autoencoder import prompts
from nla_jax.errors import NLAError

MODEL_FILE = "nla_meta.yaml"
DATASET_SUFFIX = ".nla_meta.yaml"
_ROLES = {"av": "av", "actor": "av", "ar": "ar", "critic": "ar"}
_ROLES_THERE = {"av": "actor", "ar": "critic"}
CREATED_BY = "nla_jax"


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
  """Ids that must hold for the live tokenizer.

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSidecar:
  """What `{directory}/nla_meta.yaml` says.

  Attributes:
    role: `av` or `ar`.
    stage: `init`, `sl` or `rl`.
    base_checkpoint: name of the model that the weights started from.
    d_model: width of the activation.
    injection_scale: α, the norm of an injected vector; a number in an AV, None where an AR does not say.
    mse_scale: norm to which prediction and activation are scaled; a number in an AR.
    tokens: None only where an AR does not say.
    av_template: with the field `injection_char`; None only where an AR does not say.
    ar_template: with the field `explanation`; None only where an AV does not say.
    layer_index: K, the 0-based block whose output is explained; None only where an AV does not say.
    training: free, how it was trained.
  """

  role: str
  stage: str
  base_checkpoint: str
  d_model: int
  injection_scale: float | None
  mse_scale: float | None
  tokens: Tokens | None
  av_template: str | None
  ar_template: str | None
  layer_index: int | None
  trained_on: tuple[str, ...] = ()
  parent_checkpoints: tuple[str, ...] = ()
  created_at: str = dataclasses.field(default_factory=_now)
  created_by: str = CREATED_BY
  training: dict[str, Any] = dataclasses.field(default_factory=dict)

  def verify(self, tokenizer) -> None:
    """Asserts marker, neighbours and suffix against the live tokenizer. Raises NLAError otherwise."""
    where = f"the sidecar of this {self.role.upper()}"
    # The AV's prompt is never rendered by an AR, whose tokenizer may have come without a chat template.
    renders = self.role == "av" or tokenizer.chat_template is not None
    if self.tokens is not None:
      verify_tokens(
        self.tokens, self.av_template if renders else None, self.ar_template, tokenizer, where
      )


def verify_tokens(
  tokens: Tokens, av_template: str | None, ar_template: str | None, tokenizer, where: str
) -> None:
  """Raises NLAError if the tokenizer gives other ids for the templates than `tokens` says."""
  marker_ids = prompts.encode(tokenizer, tokens.injection_char)
  if marker_ids == [tokenizer.unk_token_id]:
    raise NLAError(
      f"{where} names the marker {tokens.injection_char!r}, which its tokenizer does not know: take the "
      "tokenizer from the same checkpoint"
    )
  pairs = [("injection_token_id", [tokens.injection_token_id], marker_ids)]
  if av_template is not None and marker_ids == [tokens.injection_token_id]:
    live = prompts.make_prompts(tokenizer, av_template, marker=tokens.injection_char)
    pairs += [
      ("injection_left_neighbor_id", tokens.left_id, live.left_id),
      ("injection_right_neighbor_id", tokens.right_id, live.right_id),
    ]
  if ar_template is not None and tokens.suffix_ids:
    ids = prompts.encode(tokenizer, ar_template.format(explanation="x"), special=True)
    pairs.append(("critic_suffix_ids", list(tokens.suffix_ids), ids[-len(tokens.suffix_ids) :]))
  for name, said, found in pairs:
    if said != found:
      raise NLAError(
        f"{where} says {name} {said}, its tokenizer gives {found}: the tokenizer or the "
        "template is not the one it was trained with, take both from the same checkpoint"
      )


def tokens_of(live: prompts.Prompts) -> Tokens:
  """The sidecar's ids for prompts made with a live tokenizer."""
  return Tokens(
    injection_char=live.marker,
    injection_token_id=int(live.marker_id),
    left_id=int(live.left_id),
    right_id=int(live.right_id),
    suffix_ids=tuple(int(i) for i in live.ar_suffix),
  )


class _Reader:
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
      reason = str(error).splitlines()[0]
      raise NLAError(
        f"{path} cannot be read as YAML ({reason}): take the file from the checkpoint again"
      ) from error
    if not isinstance(self.data, dict):
      raise NLAError(f"{path} is no mapping: take the file from the checkpoint again")

  def get(
    self, *spellings: str, kind: type | tuple[type, ...] = object, required: bool = True
  ) -> Any:
    """The value at the first of the dotted `spellings` that is there and not null."""
    for spelling in spellings:
      value = self.data
      for key in spelling.split("."):
        value = value.get(key) if isinstance(value, dict) else None
      if value is None:
        continue
      if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
        raise NLAError(
          f"{self.path}: {spelling} is {value!r}, which is not of the expected type: correct it"
        )
      return value
    if required:
      raise NLAError(
        f"{self.path} lacks {' or '.join(spellings)}, which is needed and never guessed: add it"
      )
    return None

  def agreed(self, *spellings: str, kind: type, required: bool) -> Any:
    """As `get`, where all `spellings` that are there must hold the same value."""
    found = {name: self.get(name, kind=kind, required=False) for name in spellings}
    said = {name: value for name, value in found.items() if value is not None}
    if len(set(said.values())) > 1:
      raise NLAError(
        f"{self.path} contradicts itself: "
        + ", ".join(f"{name} is {value!r}" for name, value in said.items())
        + "; leave the right one"
      )
    return self.get(*spellings, kind=kind, required=required)

  def layer(self, *, required: bool) -> int | None:
    """K. The first schema called it `critic.num_hidden_layers`; beside the newer key some mean the K+1 blocks by it."""
    layer = self.agreed(
      "critic.extraction_layer_index", "extraction_layer_index", kind=int, required=False
    )
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
    value = self.get(key, required=False)
    if value is not None and value != allowed:
      raise NLAError(
        f"{self.path} sets {key} to {value!r}, {what}, which is not done here; only {allowed!r} is "
        "supported: take another checkpoint"
      )

  def names(self, key: str) -> tuple[str, ...]:
    value = self.get(key, required=False)
    if value is None:
      return ()
    return tuple(str(item) for item in value) if isinstance(value, list) else (str(value),)

  def scale(self, key: str, d_model: int, *, required: bool) -> float | None:
    value = self.get(key, kind=(int, float, str), required=required)
    if value is None:
      return None
    if value == "sqrt_d_model":
      return math.sqrt(d_model)
    try:
      scale = float(value)
    except ValueError:
      scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
      raise NLAError(f"{self.path}: {key} is {value!r}, expected a positive number: correct it")
    return scale

  def tokens(self, *, required: bool) -> Tokens | None:
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
    suffix = self.get("tokens.critic_suffix_ids", kind=list, required=False)
    return Tokens(
      injection_char=found["injection_char"],
      injection_token_id=found["injection_token_id"],
      left_id=found["injection_left_neighbor_id"],
      right_id=found["injection_right_neighbor_id"],
      suffix_ids=tuple(suffix) if suffix else None,
    )


def check_role(found: str, wanted: str) -> None:
  """Raises NLAError if a checkpoint of role `found` was given where one of role `wanted` is needed."""
  if found != wanted:
    raise NLAError(
      f"the sidecar is an {found.upper()}'s, an {wanted.upper()}'s is needed: give the other checkpoint"
    )


def read_model_sidecar(directory: str | Path, role: str | None = None) -> ModelSidecar:
  """Reads `{directory}/nla_meta.yaml`, in either spelling.

  Args:
    directory: of an AV or AR.
    role: `av` or `ar` where only one of them will do.

  Raises:
    NLAError: it is missing, no model's, of the other role, or lacks what its role needs.
  """
  wanted = role
  reader = _Reader(Path(directory) / MODEL_FILE)
  kind = reader.get("kind", kind=str)
  if kind != "nla_model":
    raise NLAError(
      f"{reader.path} is of kind {kind!r}, expected nla_model: give the directory of an AV or AR"
    )
  role_there = reader.get("role", kind=str)
  if role_there not in _ROLES:
    raise NLAError(
      f"{reader.path} has role {role_there!r}, expected one of {', '.join(_ROLES)}: correct it"
    )
  reader.refuse_unless("extraction.norm", "none", "activations that are not the raw ones")
  reader.refuse_unless(
    "actor_reasoning_mode", "default", "another form of the AV's prompt and answer"
  )
  role = _ROLES[role_there]
  check_role(role, wanted or role)
  av = role == "av"
  d_model = reader.get("d_model", kind=int)
  return ModelSidecar(
    role=role,
    stage=reader.get("stage", kind=str, required=False) or "unknown",
    base_checkpoint=str(reader.get("base_checkpoint", "base_model", required=False) or ""),
    d_model=d_model,
    injection_scale=reader.scale("extraction.injection_scale", d_model, required=av),
    mse_scale=reader.scale("extraction.mse_scale", d_model, required=not av),
    tokens=reader.tokens(required=av),
    av_template=reader.agreed(
      "prompt_templates.av", "prompt_templates.actor", kind=str, required=av
    ),
    ar_template=reader.agreed(
      "prompt_templates.ar", "prompt_templates.critic", kind=str, required=not av
    ),
    layer_index=reader.layer(required=not av),
    trained_on=reader.names("trained_on"),
    parent_checkpoints=reader.names("parent_checkpoints"),
    created_at=str(reader.get("created_at", required=False) or ""),
    created_by=str(reader.get("created_by", required=False) or ""),
    training=reader.get("training", kind=dict, required=False) or {},
  )


def _tokens_there(tokens: Tokens | None) -> dict[str, Any]:
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


def model_sidecar_mapping(sidecar: ModelSidecar) -> dict[str, Any]:
  """The mapping that is written; the inverse of `read_model_sidecar`. Raises NLAError if a part is None."""
  needed = {
    "av": ("injection_scale", "tokens", "av_template"),
    "ar": ("mse_scale", "ar_template", "layer_index"),
  }
  if sidecar.role not in needed:
    raise NLAError(f"a sidecar's role must be av or ar, got {sidecar.role!r}")
  for name in needed[sidecar.role]:
    if getattr(sidecar, name) is None:
      raise NLAError(
        f"the sidecar of an {sidecar.role.upper()} needs {name}, which is None: give it a value"
      )
  templates = {"actor": sidecar.av_template, "critic": sidecar.ar_template}
  mapping = {
    "kind": "nla_model",
    "schema_version": 2,
    "role": _ROLES_THERE[sidecar.role],
    "stage": sidecar.stage,
    "base_checkpoint": sidecar.base_checkpoint,
    "d_model": sidecar.d_model,
    "extraction": {
      name: None if scale is None else float(scale)
      for name, scale in (
        ("injection_scale", sidecar.injection_scale),
        ("mse_scale", sidecar.mse_scale),
      )
    },
    **_tokens_there(sidecar.tokens),
    "prompt_templates": {name: text for name, text in templates.items() if text is not None},
  }
  if sidecar.layer_index is not None:
    mapping["extraction_layer_index"] = sidecar.layer_index
    if sidecar.role == "ar":
      mapping["critic"] = {"extraction_layer_index": sidecar.layer_index}
  return mapping | {
    "trained_on": list(sidecar.trained_on),
    "parent_checkpoints": list(sidecar.parent_checkpoints),
    "created_at": sidecar.created_at,
    "created_by": sidecar.created_by,
    "training": sidecar.training,
  }


def write_model_sidecar(directory: str | Path, sidecar: ModelSidecar) -> Path:
  """Writes `{directory}/nla_meta.yaml`; returns its path."""
  return write_yaml(Path(directory) / MODEL_FILE, model_sidecar_mapping(sidecar))


def write_yaml(path: Path, mapping: dict[str, Any]) -> Path:
  """Writes a mapping in its own order, characters unescaped. Raises NLAError when it cannot be written."""
  try:
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
