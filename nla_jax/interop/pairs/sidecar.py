"""The sidecar `nla_meta.yaml`: what makes a directory of weights an AV or an AR.

Files say actor/critic or av/ar, and hold further keys of their own. Both spellings are read, and unknown keys are
passed over, but for those that say how the vector goes in (`injected`). It is an error where a needed key is missing,
where two spellings say different things, and where a setting asks for a computation that is not done here. We write the
form that the reference code reads, with numbers.
`docs/interchange.md` says what the keys mean.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nla_jax import files
from nla_jax.autoencoder import prompts
from nla_jax.autoencoder.text import encode
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import strays
from nla_jax.interop.pairs.injected import injection_mode
from nla_jax.interop.pairs.yaml_reader import (
  CREATED_BY,
  Tokens,
  YamlReader,
  tokens_mapping,
  utc_now,
  write_yaml,
)
from nla_jax.models.injection import ADD, REPLACE

MODEL_FILE = "nla_meta.yaml"
DATASET_SUFFIX = ".nla_meta.yaml"
_ROLES = {"av": "av", "actor": "av", "ar": "ar", "critic": "ar"}
# Of these files one lies in every AR's directory.
_AR_FILES = ("ar_meta.json", strays.AR_FILE, "value_head.safetensors")
_ROLES_THERE = {"av": "actor", "ar": "critic"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSidecar:
  """The content of `{directory}/nla_meta.yaml`.

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
    trained_on: names of the data.
    parent_checkpoints: names of what it was trained from.
    created_at: ISO 8601.
    created_by: the program.
    training: free, how it was trained.
    of_data: the file is a copy of the data set's, as another public trainer leaves it (`lora_files`).
    prompt_ids: every id of both prompts, by the names of `Prompts.ids`; None where a file does not say.
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
  created_at: str = dataclasses.field(default_factory=utc_now)
  created_by: str = CREATED_BY
  training: dict[str, Any] = dataclasses.field(default_factory=dict)
  of_data: bool = False
  prompt_ids: dict[str, list[int]] | None = None

  def verify(self, tokenizer, ends: Sequence[int] = ()) -> None:
    """Raises NLAError where the live tokenizer gives other ids for marker, neighbours, suffix and the whole prompts.

    Args:
      tokenizer: a fast tokenizer.
      ends: tokens that end an answer by the model's own files.
    """
    where = f"the sidecar of this {self.role.upper()}"

    # The AV's prompt is never rendered by an AR, whose tokenizer may have come without a chat template.
    renders = self.role == "av" or tokenizer.chat_template is not None
    if self.tokens is not None:
      verify_tokens(
        self.tokens, self.av_template if renders else None, self.ar_template, tokenizer, where
      )
    if self.role == "av" and self.prompt_ids is not None and self.ar_template is not None:
      live = prompts.make_prompts(
        tokenizer, self.av_template, self.ar_template, self.tokens.injection_char, ends
      )
      prompts.check_kept(self.prompt_ids, live, tokenizer, f"this {self.role.upper()}")


def verify_tokens(
  tokens: Tokens, av_template: str | None, ar_template: str | None, tokenizer, where: str
) -> None:
  """Raises NLAError where the tokenizer gives other ids for the templates than `tokens` says.

  Args:
    tokens: what the sidecar says.
    av_template: its neighbours are compared; None where there is no prompt to render.
    ar_template: its suffix is compared; None where there is none.
    tokenizer: a fast tokenizer.
    where: what messages call the sidecar.
  """
  # 1. The marker. An unknown token has an id too, so it is asked for first.
  alone = encode(tokenizer, tokens.injection_char)
  if alone[-1:] == [tokenizer.unk_token_id]:
    raise NLAError(
      f"{where} names the marker {tokens.injection_char!r}, which its tokenizer does not know: take the "
      "tokenizer from the same checkpoint"
    )
  # Alone it may have a blank before it, which it has not in the prompt.
  pairs = [("injection_token_id", tokens.injection_token_id, alone[-1])]

  # 2. The marker and its neighbours in the rendered prompt, where injection looks for them.
  if av_template is not None and alone[-1] == tokens.injection_token_id:
    live = prompts.make_prompts(tokenizer, av_template, marker=tokens.injection_char)
    pairs += [
      ("injection_token_id", tokens.injection_token_id, live.marker_id),
      ("injection_left_neighbor_id", tokens.left_id, live.left_id),
      ("injection_right_neighbor_id", tokens.right_id, live.right_id),
    ]

  # 3. The end of the AR's input, where the head reads.
  if ar_template is not None and tokens.suffix_ids:
    ids = encode(tokenizer, prompts.ar_text(ar_template, "x"), special=True)
    pairs.append(("critic_suffix_ids", list(tokens.suffix_ids), ids[-len(tokens.suffix_ids) :]))

  for name, said, found in pairs:
    if said != found:
      raise NLAError(
        f"{where} says {name} {said}, its tokenizer gives {found}: the tokenizer or the "
        "template is not the one it was trained with, take both from the same checkpoint"
      )


def tokens_of(live: prompts.Prompts) -> Tokens:
  """Returns the sidecar's ids for prompts that were made with a live tokenizer."""
  return Tokens(
    injection_char=live.marker,
    injection_token_id=int(live.marker_id),
    left_id=int(live.left_id),
    right_id=int(live.right_id),
    suffix_ids=tuple(int(i) for i in live.ar_suffix),
  )


def check_role(found: str, wanted: str) -> None:
  """Raises NLAError where a checkpoint of role `found` was given and one of role `wanted` is needed."""
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
  # 1. Whether it is a model's sidecar, and whose.
  wanted, directory = role, Path(directory)
  _refuse_absent(directory)
  reader = YamlReader(directory / MODEL_FILE)
  reader.refuse_unknown_schema()
  if reader.get("kind", kind=str) == "nla_dataset" and _holds_model(directory):
    return _copied(reader, directory, wanted)
  role = _role(reader)
  check_role(role, wanted or role)

  # 2. Settings under which the same weights would compute something else.
  reader.refuse_unless("extraction.norm", "none", "activations that are not the raw ones")
  reader.refuse_unless(
    "actor_reasoning_mode", "default", "another form of the AV's prompt and answer"
  )

  # 3. The rest. What the other role needs may be missing: each half is useful by itself.
  av, training = role == "av", reader.get("training", kind=dict, required=False) or {}
  mode = injection_mode(reader.data, reader.path)
  if mode is not None:
    training = {**training, "inject_mode": mode}
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
    training=training,
    prompt_ids=reader.ids("prompt_ids"),
  )


def _role(reader: YamlReader) -> str:
  """`av` or `ar`, as a model's sidecar says it. Raises NLAError where it is no model's, or says another role."""
  kind = reader.get("kind", kind=str)
  if kind != "nla_model":
    raise NLAError(
      f"{reader.path} is of kind {kind!r}, expected nla_model: give the directory of an AV or AR"
    )
  role = reader.get("role", kind=str)
  if role not in _ROLES:
    raise NLAError(
      f"{reader.path} has role {role!r}, expected one of {', '.join(_ROLES)}: correct it"
    )
  return _ROLES[role]


def _refuse_absent(directory: Path) -> None:
  """Raises NLAError where a directory of adapters came without its sidecar, which its trainer did not write."""
  adapters = strays.adapter_files(directory)
  if adapters and not (directory / MODEL_FILE).is_file():
    raise NLAError(
      f"{directory} holds adapters ({adapters[0]}) and no {MODEL_FILE}: where they are an AV's or AR's, copy the "
      f"sidecar of the data that they were trained on (NAME.parquet{DATASET_SUFFIX}) there under that name"
    )


def _holds_model(directory: Path) -> bool:
  return bool(strays.adapter_files(directory)) or strays.has_whole_weights(directory)


def _copied(reader: YamlReader, directory: Path, wanted: str | None) -> ModelSidecar:
  """What a data set's sidecar says of the AV or AR that it was copied to; see `lora_files`."""
  # 1. Whose it is. The file does not say, so the other files do.
  role = "ar" if any((directory / name).is_file() for name in _AR_FILES) else "av"
  check_role(role, wanted or role)
  reader.refuse_unless("extraction.norm", "none", "activations that are not the raw ones")

  # 2. How the vector goes in. A scale is what a replaced vector has; that trainer's added ones have none.
  mode = injection_mode(reader.data, reader.path)
  if mode is None and reader.get("extraction.injection_scale", required=False) is not None:
    raise NLAError(
      f"{reader.path} is a data set's, with an injection_scale, and does not say how its AV's vector goes in: say "
      "injection_mode (replace; or add, with injection_layer: 1)"
    )
  d_model = reader.get("extraction.d_model", kind=int)
  mode = mode or ADD
  scale = reader.scale("extraction.injection_scale", d_model, required=mode == REPLACE)

  # 3. The rest. What is added has the residual's length, whatever the scale.
  config = files.read_json(directory / strays.ADAPTER_CONFIG)
  base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
  return ModelSidecar(
    role=role,
    stage="unknown",
    base_checkpoint=str(base or reader.get("extraction.base_model", kind=str)),
    d_model=d_model,
    injection_scale=scale or 1.0,
    mse_scale=reader.scale("extraction.mse_scale", d_model, required=False) or d_model**0.5,
    tokens=reader.tokens(required=role == "av"),
    av_template=reader.agreed(
      "prompt_templates.av", "prompt_templates.actor", kind=str, required=role == "av"
    ),
    ar_template=reader.agreed(
      "prompt_templates.ar", "prompt_templates.critic", kind=str, required=role == "ar"
    ),
    layer_index=reader.get("extraction.layer_index", kind=int),
    trained_on=reader.names("dataset_id"),
    created_at=str(reader.get("created_at", required=False) or ""),
    created_by=str(reader.get("created_by", required=False) or ""),
    training={"inject_mode": mode},
    of_data=True,
  )


def model_sidecar_mapping(sidecar: ModelSidecar) -> dict[str, Any]:
  """Returns the mapping that is written, as `read_model_sidecar` reads it.

  Raises:
    NLAError: something that the role needs is None.
  """
  # 1. What a reader of this role will ask for.
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

  # 2. Actor and critic are the words of the reference code, whose readers know no others.
  templates = {"actor": sidecar.av_template, "critic": sidecar.ar_template}
  scales = {"injection_scale": sidecar.injection_scale, "mse_scale": sidecar.mse_scale}
  mapping = {
    "kind": "nla_model",
    "schema_version": 2,
    "role": _ROLES_THERE[sidecar.role],
    "stage": sidecar.stage,
    "base_checkpoint": sidecar.base_checkpoint,
    "d_model": sidecar.d_model,
    "extraction": {name: None if scale is None else float(scale) for name, scale in scales.items()},
    **tokens_mapping(sidecar.tokens),
    "prompt_templates": {name: text for name, text in templates.items() if text is not None},
  }

  # 3. K stands at the top for both roles; an AR's reader there looks below `critic`.
  if sidecar.layer_index is not None:
    mapping["extraction_layer_index"] = sidecar.layer_index
    if sidecar.role == "ar":
      mapping["critic"] = {"extraction_layer_index": sidecar.layer_index}
  if sidecar.prompt_ids is not None:
    mapping["prompt_ids"] = sidecar.prompt_ids
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
