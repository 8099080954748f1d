"""The adapters of an AV or an AR: PEFT's two files, or the one file in which another public trainer keeps an AR's.

  PEFT                   adapter_config.json  adapter_model.safetensors
  that trainer's AR      ar_meta.json         ar_lora_value_head.safetensors

Its one file holds the adapters as torch names them inside its module (`backbone.….lora_A.default.weight`) and the head
(`value_head.weight`); its scale is alpha / √rank. Beside either lies a copy of the data set's sidecar, and its AVs add
the vector, norm-matched, to the output of block 1.
"""

from pathlib import Path
from typing import Any

import numpy as np

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import Adapter, read_adapter, read_matrices
from nla_jax.interop.adapters.settings import Settings, check_numbers
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.strays import AR_FILE, adapter_files
from nla_jax.models.architectures import Architecture
from nla_jax.progress import say

META = "ar_meta.json"
_HEADS = ("value_head.weight", "weight")


def read_adapters(directory: Path, architecture: Architecture) -> Adapter:
  """Reads the adapters of a directory in either form.

  Args:
    directory: an AV's or AR's.
    architecture: of what is adapted: the whole base of an AV, the blocks 0..K of an AR.

  Raises:
    NLAError: as `read_adapter`; or an AR of the other form was trained otherwise than one is computed here.
  """
  path = directory / AR_FILE
  if not path.is_file():
    return read_adapter(directory, architecture)
  meta = _read_meta(directory, architecture)
  names = _adapter_names(path)
  peft = [name for name in adapter_files(directory) if name != AR_FILE]

  # Some keep the head alone in it, and the adapters as PEFT does.
  if not names:
    return read_adapter(directory, architecture)
  if peft:
    raise NLAError(
      f"{directory} holds adapters twice, in {AR_FILE} and in {peft[0]}: leave those that the AR was trained with"
    )
  return read_matrices(path, _settings(meta, directory / META), architecture, names=names)


def read_head(directory: Path, d_model: int) -> np.ndarray:
  """The head in the other trainer's file, [out, in] float32. Raises NLAError where there is none of this width."""
  path = directory / AR_FILE
  found = [name for name in tensor_files.read_header(path) if name in _HEADS]
  if len(found) != 1:
    raise NLAError(
      f"{path} holds {len(found)} of {', '.join(_HEADS)}, the AR's head: save the file again with one"
    )
  return tensor_files.read_file(path, {found[0]: (d_model, d_model)}, others=True)[found[0]]


def _read_meta(directory: Path, architecture: Architecture) -> dict[str, Any]:
  """What `ar_meta.json` says. Raises NLAError where it asks for another AR than one is here."""
  path = directory / META
  meta = files.read_json(path)
  if not isinstance(meta, dict):
    raise NLAError(f"no {META} beside {AR_FILE} in {directory}: fetch it from the same checkpoint")

  # Without a word of it there are checkpoints of both kinds, and the norm changes every reconstruction.
  if meta.get("final_norm_stripped") is not True:
    raise NLAError(
      f"{path} says final_norm_stripped: {meta.get('final_norm_stripped')}, and an AR here has no final norm: where it "
      "was trained without one, add final_norm_stripped: true"
    )
  blocks = meta.get("ar_num_layers", meta.get("num_layers"))
  if blocks != architecture.n_layers:
    raise NLAError(
      f"{path} says {blocks} blocks, the sidecar's layer asks for {architecture.n_layers}: they belong to different "
      "checkpoints"
    )

  if meta.get("quant") not in (None, "none"):
    say(f"{directory}: trained on a base in {meta['quant']}, which is read in its own precision")
  return meta


def _adapter_names(path: Path) -> dict[str, str]:
  """{PEFT's name: name in the file} of the matrices in the trainer's file."""
  found = {}
  for name in tensor_files.read_header(path):
    if name not in _HEADS:
      peft = name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")
      found["base_model.model." + peft.removeprefix("backbone.")] = name
  return found


def _settings(meta: dict[str, Any], path: Path) -> Settings:
  numbers = {"rank": meta.get("lora_r"), "alpha": meta.get("lora_alpha"), "ranks": {}, "alphas": {}}
  check_numbers(**numbers, path=path)
  # The trainer sets it for every adapter, and writes it nowhere.
  return Settings(base="", rslora=True, **numbers)
