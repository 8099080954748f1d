"""Writes an AV or an AR as a Hugging Face directory that other tools load.

Nothing is written before the sidecar, the architecture and the live tokenizer agree: see `directories`.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.tokenizers import emits_bos, save_tokenizer
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.pairs.adapted import HEAD_FILE
from nla_jax.interop.pairs.directories import check_parts, injection_shapes
from nla_jax.interop.pairs.injected import INJECTION_FILE, INJECTION_NOTE
from nla_jax.interop.pairs.sidecar import ModelSidecar
from nla_jax.models.architectures import Architecture
from nla_jax.parallel import distributed, sharding


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
    directory: an earlier export there is replaced; otherwise it must be absent or empty.
    architecture: of `params`.
    params: the AV's transformer.
    tokenizer: with its chat template.
    model_sidecar: with role `av`.
    base_config: the `config.json` of the model that it started from; its other keys are kept.
    injection: a learned affine map, {"matrix": [d_model, d_model], "bias": [d_model]}. `docs/interchange.md` has no
      place for it, so it goes into a file of its own, which the sidecar's `training` names. Readers that do not know
      it inject without the map.
    dtype: of the weights in the file, `float32` or `bfloat16`.

  Returns:
    The directory.

  Raises:
    NLAError: the parts do not belong together, or the disk is full.
  """
  check_parts(architecture, tokenizer, model_sidecar, "av")
  if injection is not None:
    noted = {**model_sidecar.training, "injection": INJECTION_NOTE}
    model_sidecar = dataclasses.replace(model_sidecar, training=noted)

  # Every process takes part in bringing the arrays together; only the first one writes.
  if not distributed.is_first():
    extra = [] if injection is None else [injection[key] for key in ("matrix", "bias")]
    _bring_together(huggingface.tensors_of(params, architecture), extra)
    return Path(directory)

  with files.whole_directory(Path(directory), sidecar.MODEL_FILE) as folder:
    config = _write_config(folder, architecture, tokenizer, base_config, dtype)
    _write_json(
      folder / "generation_config.json", _generation_config(config, tokenizer, model_sidecar)
    )

    # In the order of `_bring_together`: the other processes wait for each array in turn.
    tensor_files.write_tensors(folder, huggingface.tensors_of(params, architecture), dtype=dtype)
    if injection is not None:
      arrays = {key: _host(injection[key]) for key in ("matrix", "bias")}
      _check_shapes(arrays, injection_shapes(architecture), "the injection map")
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
  """Writes blocks 0..K without final norm and unembedding, and the value head in a file of its own.

  Args:
    directory: an earlier export there is replaced; otherwise it must be absent or empty.
    architecture: with K+1 layers.
    params: the AR's transformer.
    head: [d_model, d_model], prediction = residual @ head.
    tokenizer: it is written with right padding.
    model_sidecar: with role `ar` and `layer_index` K.
    base_config: the `config.json` of the model that it started from; its other keys are kept.
    dtype: of the weights in the file, `float32` or `bfloat16`.

  Returns:
    The directory.

  Raises:
    NLAError: the parts do not belong together, or the disk is full.
  """
  check_parts(architecture, tokenizer, model_sidecar, "ar")
  square = (architecture.d_model, architecture.d_model)
  weight = _host(head)
  _check_shapes({"head": weight}, {"head": square}, "the AR's head")

  # Every process takes part in bringing the arrays together; only the first one writes.
  tensors = huggingface.tensors_of(params, architecture, headless=True)
  if not distributed.is_first():
    _bring_together(tensors)
    return Path(directory)

  with files.whole_directory(Path(directory), sidecar.MODEL_FILE) as folder:
    _write_config(folder, architecture, tokenizer, base_config, dtype)
    tensor_files.write_tensors(folder, tensors, dtype=dtype)
    # torch's linear layers keep [out, in].
    tensor_files.write_file(folder / HEAD_FILE, {"weight": weight.T}, dtype=dtype)

    # The AR reads the last token; the reference's reader expects padding on the right of it.
    save_tokenizer(tokenizer, folder, padding_side="right")
    sidecar.write_model_sidecar(folder, model_sidecar)
  return Path(directory)


def _write_config(
  folder: Path,
  architecture: Architecture,
  tokenizer,
  base_config: dict[str, Any] | None,
  dtype: str,
) -> dict[str, Any]:
  """Writes config.json; returns what it holds."""
  config = huggingface.config_from_architecture(architecture, base_config, dtype=dtype)
  if base_config is None:
    config |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}

  # A BOS that the tokenizer never emits is refused by readers there, so it is not named at all.
  config["bos_token_id"] = tokenizer.bos_token_id if emits_bos(tokenizer) else None
  _write_json(folder / "config.json", config)
  return config


def _generation_config(
  config: dict[str, Any], tokenizer, model_sidecar: ModelSidecar
) -> dict[str, Any]:
  """Settings under which other tools sample from the model's own distribution."""
  # The base model may end its answers otherwise than the tokenizer's EOS, and the chat template a turn otherwise than
  # both: generation stops at any of them.
  base = config.get("eos_token_id")
  ends = [
    *(base if isinstance(base, list) else [base]),
    tokenizer.eos_token_id,
    *(model_sidecar.prompt_ids or {}).get("stop_ids", ()),
  ]
  ends = list(dict.fromkeys(end for end in ends if end is not None))

  return {
    "bos_token_id": config["bos_token_id"],
    "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
    "pad_token_id": tokenizer.pad_token_id,
    "do_sample": True,
    "temperature": 1.0,
    # The whole vocabulary: servers differ in how they read a top_k of 0.
    "top_k": config["vocab_size"],
    "top_p": 1.0,
    "repetition_penalty": 1.0,
  }


def _check_shapes(
  arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], what: str
) -> None:
  """Raises NLAError where an array has another shape."""
  for name, shape in shapes.items():
    if arrays[name].shape != shape:
      raise NLAError(
        f"{what} has a {name} of shape {list(arrays[name].shape)}, expected {list(shape)}"
      )


def _host(array) -> np.ndarray:
  """An array as float32 on the host; every process that holds a part of it must call this."""
  return sharding.fetch(array).astype(np.float32, copy=False)


def _bring_together(tensors: Iterable[tensor_files.Tensor], arrays: Iterable = ()) -> None:
  """Fetches what the first process writes, in its order: every process that holds a part has to."""
  for tensor in tensors:
    tensor.make()
  for array in arrays:
    _host(array)


def _write_json(path: Path, mapping: dict[str, Any]) -> None:
  """Writes a JSON object as transformers writes it. Raises NLAError when that fails."""
  files.write_text(path, json.dumps(mapping, indent=2, sort_keys=True) + "\n")
