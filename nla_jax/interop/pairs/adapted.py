"""An AV or an AR as adapters: PEFT's two files beside the sidecar, on a base model that lies somewhere else.

  av/  adapter_config.json  adapter_model.safetensors  nla_meta.yaml  [injection.safetensors]
  ar/  adapter_config.json  adapter_model.safetensors  nla_meta.yaml  value_head.safetensors

Architecture, tokenizer and weights of the base are those of the model that the sidecar names; its hash is compared.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.interop.adapters.write import write_adapter
from nla_jax.interop.base_models import strays, tensor_files
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.pairs.injected import INJECTION_FILE
from nla_jax.interop.pairs.sidecar import ModelSidecar
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import Lora
from nla_jax.parallel import sharding

HEAD_FILE = "value_head.safetensors"
BASE_HASH = "base_hash"  # in the sidecar's `training`


def is_adapted(directory: Path) -> bool:
  """Whether an AV's or AR's directory holds adapters instead of a whole model. Raises NLAError where it holds both."""
  found = bool(strays.adapter_files(directory))
  if found and strays.has_whole_weights(directory):
    strays.refuse_adapter(directory)
  return found


@functools.lru_cache(maxsize=2)
def find_base(name: str) -> Pretrained:
  """A base model without its weights; both halves of a pair ask for the same one."""
  return load_pretrained(name, weights=False)


def base_of(side: ModelSidecar, base: str | None = None) -> Pretrained:
  """The base of adapters, without its weights.

  Args:
    side: of the adapters' directory.
    base: its name, in place of the one that the sidecar says.

  Raises:
    NLAError: there is no such model, or it is another one than the adapters were trained on.
  """
  name = base or side.base_checkpoint
  if not name:
    raise NLAError(
      f"the sidecar of this {side.role.upper()} names no base model for its adapters: name it with "
      "nla_jax.load(…, base=…)"
    )

  found, expected = find_base(name), side.training.get(BASE_HASH)
  if expected and found.model_hash != expected:
    raise NLAError(
      f"these adapters were trained on {side.base_checkpoint} with the hash {expected[:12]}…, and {name} has "
      f"{found.model_hash[:12]}…: give the base model of that hash with base=…"
    )
  return found


def write_adapted(
  directory: Path,
  base: Pretrained,
  lora: Lora,
  params: dict[str, Any],
  model_sidecar: ModelSidecar,
  *,
  dtype: str = "float32",
) -> None:
  """Writes the adapters of an AV or an AR with all that was trained beside them; the directory appears whole.

  Args:
    directory: an earlier export there is replaced; otherwise it must be absent or empty.
    base: the base model, without weights.
    lora: of the adapters.
    params: what was trained: {"transformer": adapters, "head" or "injection": …}.
    model_sidecar: the base's hash is added to it.
    dtype: of the matrices, `float32` or `bfloat16`.

  Raises:
    NLAError: the parts do not belong together, a value is not finite, or the disk is full.
  """
  noted = {**model_sidecar.training, BASE_HASH: base.model_hash}
  side = dataclasses.replace(model_sidecar, training=noted)
  # Every process takes part in bringing the arrays together.
  head = params["head"]["weight"] if "head" in params else None
  extra = {name: _host(array) for name, array in params.get("injection", {}).items()}
  head = None if head is None else _host(head)

  def also(folder: Path) -> None:
    if head is not None:  # torch's linear layers keep [out, in]
      tensor_files.write_file(folder / HEAD_FILE, {"weight": head.T}, dtype=dtype)
    if extra:
      tensor_files.write_file(folder / INJECTION_FILE, extra)
    sidecar.write_model_sidecar(folder, side)

  adapters = params["transformer"]
  write_adapter(
    directory, base.architecture, lora, adapters, base=base.source, dtype=dtype, also=also
  )


def architecture_of(base: Pretrained, side: ModelSidecar) -> Architecture:
  """The architecture of an AV, or of an AR's blocks 0..K, on this base."""
  whole = base.architecture
  if side.role == "av":
    return whole
  if not 0 <= side.layer_index < whole.n_layers:
    raise NLAError(
      f"the sidecar of this AR says layer {side.layer_index}, its base {base.source} has blocks "
      f"0..{whole.n_layers - 1}: they belong to different checkpoints"
    )
  return whole.lower(side.layer_index + 1)


def _host(array) -> np.ndarray:
  return sharding.fetch(array).astype(np.float32, copy=False)
