"""AV and AR directories that other tools load, and the way back, verified in both directions.

A wrong number of layers loads there without a word and random blocks on top, so nothing is written or read
here before the sidecar, the architecture, the tensors and the live tokenizer agree.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.autoencoder.prompts import encode
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.find import is_hub_id
from nla_jax.interop.base_models.tokenizers import emits_bos, save_tokenizer
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.pairs.sidecar import ModelSidecar
from nla_jax.models.architectures import Architecture
from nla_jax.parallel import distributed, sharding

HEAD_FILE = "value_head.safetensors"
INJECTION_FILE = "injection.safetensors"
# What an AR's config.json may say otherwise without computing anything else: it has no unembedding.
_FREE = ("tied", "max_positions")
_INJECTION_NOTE = (
  f"learned affine map on the injected vector, in {INJECTION_FILE}: x @ matrix + bias"
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """An AV or AR as read from its directory.

  Attributes:
    architecture: of `params`; an AR's has K+1 layers.
    params: parameter tree of `jax.Array`s in the layout of the mesh in context; an AR's has no final norm and no
      unembedding.
    tokenizer: verified against the sidecar.
    sidecar: what `nla_meta.yaml` says.
    head: [d_model, d_model], prediction = residual @ head; only in an AR.
    injection: {"matrix": [d_model, d_model], "bias": [d_model]}; only in an AV with a learned affine
      injection.
  """

  architecture: Architecture
  params: dict[str, Any]
  tokenizer: Any
  sidecar: ModelSidecar
  head: np.ndarray | None = None
  injection: dict[str, np.ndarray] | None = None


def write_av(
  directory: str | Path,
  architecture: Architecture,
  params: dict[str, Any],
  tokenizer,
  model_sidecar: ModelSidecar,
  base_config: dict[str, Any] | None = None,
  *,
  injection: dict[str, Any] | None = None,
  dtype: str = "float32",
) -> Path:
  """Writes an ordinary causal language model with its sidecar; the directory appears whole or not at all.

  Args:
    directory: replaced if it holds an earlier export, else it must be absent or empty.
    architecture: of `params`.
    params: the AV's transformer.
    tokenizer: with its chat template.
    model_sidecar: with role `av`.
    base_config: the `config.json` of the model that it started from; its other keys are kept.
    injection: a learned affine map, {"matrix", "bias"}; the contract has no place for it, so it goes in a
      file of its own, named in the sidecar's `training`. Readers that do not know it inject without the map.
    dtype: of the weights in the file, `float32` or `bfloat16`.

  Raises:
    NLAError: the parts do not belong together, or the disk is full.
  """
  _check_parts(architecture, tokenizer, model_sidecar, "av")
  if injection is not None:
    model_sidecar = dataclasses.replace(
      model_sidecar, training={**model_sidecar.training, "injection": _INJECTION_NOTE}
    )
  if (
    not distributed.is_first()
  ):  # takes its part in bringing the arrays together, and writes nothing
    extra = [] if injection is None else [injection[key] for key in ("matrix", "bias")]
    _bring_together(huggingface.tensors_of(params, architecture), extra)
    return Path(directory)
  with _whole_directory(Path(directory)) as folder:
    config = _write_config(folder, architecture, tokenizer, base_config, dtype)
    _write_json(folder / "generation_config.json", _generation_config(config, tokenizer))
    tensor_files.write_tensors(folder, huggingface.tensors_of(params, architecture), dtype=dtype)
    if injection is not None:
      arrays = {key: _host(injection[key]) for key in ("matrix", "bias")}
      _check_shapes(arrays, _injection_shapes(architecture), "the injection map")
      tensor_files.write_file(folder / INJECTION_FILE, arrays)
    save_tokenizer(tokenizer, folder)
    sidecar.write_model_sidecar(folder, model_sidecar)
  return Path(directory)


def write_ar(
  directory: str | Path,
  architecture: Architecture,
  params: dict[str, Any],
  head,
  tokenizer,
  model_sidecar: ModelSidecar,
  base_config: dict[str, Any] | None = None,
  *,
  dtype: str = "float32",
) -> Path:
  """Writes blocks 0..K without final norm and unembedding, and the head in a file of its own.

  Args:
    directory: replaced if it holds an earlier export, else it must be absent or empty.
    architecture: with K+1 layers.
    params: the AR's transformer.
    head: [d_model, d_model], prediction = residual @ head.
    tokenizer: is written with right padding.
    model_sidecar: with role `ar` and `layer_index` K.
    base_config: the `config.json` of the model that it started from; its other keys are kept.
    dtype: of the weights in the file, `float32` or `bfloat16`.

  Raises:
    NLAError: the parts do not belong together, or the disk is full.
  """
  _check_parts(architecture, tokenizer, model_sidecar, "ar")
  weight = _host(head)
  _check_shapes(
    {"head": weight}, {"head": (architecture.d_model, architecture.d_model)}, "the AR's head"
  )
  if not distributed.is_first():
    _bring_together(huggingface.tensors_of(params, architecture, headless=True))
    return Path(directory)
  with _whole_directory(Path(directory)) as folder:
    _write_config(folder, architecture, tokenizer, base_config, dtype)
    tensors = huggingface.tensors_of(params, architecture, headless=True)
    tensor_files.write_tensors(folder, tensors, dtype=dtype)
    tensor_files.write_file(folder / HEAD_FILE, {"weight": weight.T}, dtype=dtype)
    save_tokenizer(tokenizer, folder, padding_side="right")
    sidecar.write_model_sidecar(folder, model_sidecar)
  return Path(directory)


def read_av(directory: str | Path, *, dtype: str = "float32") -> Checkpoint:
  """Reads an AV directory, ours or another's.

  Args:
    directory: as `write_av` leaves it.
    dtype: of the transformer's parameters, `float32` or `bfloat16`.

  Raises:
    NLAError: a file is missing or the sidecar, the files and the tokenizer do not agree.
  """
  directory = Path(directory)
  model_sidecar, architecture, tokenizer = _read_parts(directory, "av")
  injection = None
  if (directory / INJECTION_FILE).is_file():
    injection = tensor_files.read_file(directory / INJECTION_FILE, _injection_shapes(architecture))
  elif model_sidecar.training.get("injection") == _INJECTION_NOTE:
    raise NLAError(
      f"{directory} lacks {INJECTION_FILE}, which its sidecar names: copy it from the export"
    )
  params = huggingface.read_params(directory, architecture, dtype=dtype)
  return Checkpoint(
    architecture=architecture,
    params=params,
    tokenizer=tokenizer,
    sidecar=model_sidecar,
    injection=injection,
  )


def read_ar(directory: str | Path, *, dtype: str = "float32") -> Checkpoint:
  """Reads an AR directory, ours or another's.

  Args:
    directory: as `write_ar` leaves it.
    dtype: of the transformer's parameters, `float32` or `bfloat16`.

  Raises:
    NLAError: a file is missing or the sidecar, the files and the tokenizer do not agree.
  """
  directory = Path(directory)
  model_sidecar, architecture, tokenizer = _read_parts(directory, "ar")
  shape = (architecture.d_model, architecture.d_model)
  head = tensor_files.read_file(directory / HEAD_FILE, {"weight": shape})["weight"]
  params = huggingface.read_params(directory, architecture, headless=True, dtype=dtype)
  return Checkpoint(
    architecture=architecture,
    params=params,
    tokenizer=tokenizer,
    sidecar=model_sidecar,
    head=np.ascontiguousarray(head.T),
  )


def check_pair(av: str | Path, ar: str | Path) -> None:
  """Asserts, before any weight is read, that an AV and an AR directory are of one base model, layer and tokenizer.

  Raises:
    NLAError: one of them is not good by itself, or the two contradict each other.
  """
  one, av_architecture, av_tokenizer = _read_parts(Path(av), "av")
  other, ar_architecture, ar_tokenizer = _read_parts(Path(ar), "ar")
  lower = av_architecture.lower(min(ar_architecture.n_layers, av_architecture.n_layers))
  # Only names of hub repositories are compared: some files name the checkpoint that a stage began with instead.
  bases = [
    side.base_checkpoint if is_hub_id(side.base_checkpoint) else None for side in (one, other)
  ]
  probe = lambda tokenizer: encode(
    tokenizer, other.ar_template.format(explanation="x"), special=True
  )
  pairs = [
    ("base_checkpoint", *bases),
    ("layer", one.layer_index, other.layer_index),
    *(
      (field.name, getattr(lower, field.name), getattr(ar_architecture, field.name))
      for field in dataclasses.fields(Architecture)
      if field.name not in _FREE
    ),
    ("the AV's template", one.av_template, other.av_template),
    ("the AR's template", one.ar_template, other.ar_template),
    ("the AR's input for the explanation 'x'", probe(av_tokenizer), probe(ar_tokenizer)),
  ]
  if other.tokens is not None:
    pairs += [
      (field.name, getattr(one.tokens, field.name), getattr(other.tokens, field.name))
      for field in dataclasses.fields(sidecar.Tokens)
    ]
  for name, first, second in pairs:
    if first != second and first is not None and second is not None:
      raise NLAError(
        f"this AV and this AR do not belong together: {name} is {first!r} in the AV and {second!r} in the "
        "AR; give the two halves of one pair"
      )


def _read_parts(directory: Path, role: str) -> tuple[ModelSidecar, Architecture, Any]:
  model_sidecar = sidecar.read_model_sidecar(directory, role)
  architecture = huggingface.architecture_from_config(huggingface.read_config(directory))
  tokenizer = huggingface.read_tokenizer(directory)
  _check_parts(architecture, tokenizer, model_sidecar, role)
  return model_sidecar, architecture, tokenizer


def _check_parts(
  architecture: Architecture, tokenizer, model_sidecar: ModelSidecar, role: str
) -> None:
  sidecar.check_role(model_sidecar.role, role)
  if model_sidecar.d_model != architecture.d_model:
    raise NLAError(
      f"the sidecar says d_model {model_sidecar.d_model}, the model has {architecture.d_model}: "
      "they belong to different checkpoints"
    )
  if role == "ar" and model_sidecar.layer_index + 1 != architecture.n_layers:
    raise NLAError(
      f"an AR for the output of block {model_sidecar.layer_index} has "
      f"{model_sidecar.layer_index + 1} blocks, this one has {architecture.n_layers}: cut it "
      f"to blocks 0..{model_sidecar.layer_index}"
    )
  if len(tokenizer) > architecture.vocab_size:
    raise NLAError(
      f"the tokenizer has {len(tokenizer)} tokens, the model's embedding "
      f"{architecture.vocab_size} rows: take the tokenizer that belongs to the model"
    )
  model_sidecar.verify(tokenizer)


def _write_config(
  folder: Path,
  architecture: Architecture,
  tokenizer,
  base_config: dict[str, Any] | None,
  dtype: str,
) -> dict[str, Any]:
  config = huggingface.config_from_architecture(architecture, base_config, dtype=dtype)
  if base_config is None:
    config |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
  # A BOS that the tokenizer never emits is refused by readers there, so it is not named at all.
  config["bos_token_id"] = tokenizer.bos_token_id if emits_bos(tokenizer) else None
  _write_json(folder / "config.json", config)
  return config


def _generation_config(config: dict[str, Any], tokenizer) -> dict[str, Any]:
  """Samples from the model's own distribution. `top_k` is the vocabulary: servers differ in how 0 is read."""
  ends = config.get("eos_token_id")
  ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
  if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
    ends = [*ends, tokenizer.eos_token_id]
  return {
    "bos_token_id": config["bos_token_id"],
    "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
    "pad_token_id": tokenizer.pad_token_id,
    "do_sample": True,
    "temperature": 1.0,
    "top_k": config["vocab_size"],
    "top_p": 1.0,
    "repetition_penalty": 1.0,
  }


def _injection_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
  return {"matrix": (architecture.d_model, architecture.d_model), "bias": (architecture.d_model,)}


def _check_shapes(
  arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], what: str
) -> None:
  for name, shape in shapes.items():
    if arrays[name].shape != shape:
      raise NLAError(
        f"{what} has a {name} of shape {list(arrays[name].shape)}, expected {list(shape)}"
      )


def _host(array) -> np.ndarray:
  return sharding.fetch(array).astype(np.float32, copy=False)


def _bring_together(tensors: Iterable[tensor_files.Tensor], arrays: Iterable = ()) -> None:
  """Fetches what the first process writes, in its order: every process that holds a part has to."""
  for tensor in tensors:
    tensor.make()
  for array in arrays:
    _host(array)


def _write_json(path: Path, mapping: dict[str, Any]) -> None:
  try:
    path.write_text(json.dumps(mapping, indent=2, sort_keys=True) + "\n")
  except OSError as error:
    raise NLAError(
      f"{path} could not be written ({error.strerror}): free some space or choose another directory"
    ) from error


@contextlib.contextmanager
def _whole_directory(directory: Path) -> Iterator[Path]:
  """A new folder beside `directory` that takes its place only when everything in it has been written."""
  replaced = directory.exists()
  if replaced and any(directory.iterdir()) and not (directory / sidecar.MODEL_FILE).is_file():
    raise NLAError(
      f"{directory} holds files that are no earlier export: choose an empty or a new directory"
    )
  partial = directory.with_name(directory.name + ".partial")
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if replaced:
      shutil.rmtree(directory)
    partial.rename(directory)
  except OSError as error:
    raise NLAError(
      f"{directory} could not be written ({error.strerror or error}): free some space or choose "
      "another directory"
    ) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
