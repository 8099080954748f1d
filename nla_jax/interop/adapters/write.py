"""Writes an adapter as the two files that `peft.PeftModel.from_pretrained` loads."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.settings import CONFIG_FILE
from nla_jax.interop.adapters.tensors import (
  HALVES,
  ROOTS,
  WEIGHTS_FILE,
  Matrix,
  adapted_leaves,
  is_multimodal,
  module_of,
  our_shapes,
  to_file,
)
from nla_jax.interop.base_models import tensor_files
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import Lora
from nla_jax.parallel import distributed, sharding


def write_adapter(
  directory: str | Path,
  architecture: Architecture,
  lora: Lora,
  params: dict[str, Any],
  *,
  base: str,
  root: str = "model.",
  dtype: str = "float32",
  also: Callable[[Path], None] | None = None,
) -> Path:
  """Writes adapter_config.json and adapter_model.safetensors; the directory appears whole or not at all.

  Every process must call this, since all of them bring the matrices together; the first one writes.

  Args:
    directory: an earlier export there is replaced; otherwise it must be absent or empty.
    architecture: of the base model. Of one with more blocks than `params` only the first are adapted.
    lora: rank, alpha and targets of `params`.
    params: {"layers": {…}} as `Adapter.params` has it, on the host or on the devices.
    base: the name or path under which others find the base model; PEFT reads it.
    root: what stands before `layers` in the base's own names: `model.` for a causal language model,
      `model.language_model.` for a multimodal one (transformers 5).
    dtype: of the matrices in the file, `float32` or `bfloat16`.
    also: function that writes further files into the folder before it appears.

  Returns:
    The directory.

  Raises:
    NLAError: the parts do not belong together, a value is not finite, or the disk is full.
  """
  if root not in ROOTS:
    raise NLAError(f"root {root!r} was asked for; blocks are found under {', '.join(ROOTS)}")
  stacks = _checked(architecture, lora, params)
  n_layers = len(next(iter(stacks.values())))
  if not distributed.is_first():
    return Path(directory)

  with files.whole_directory(Path(directory), CONFIG_FILE) as folder:
    leaves, arrays = adapted_leaves(architecture), {}
    for name in lora.targets:
      for layer in range(n_layers):
        for half in HALVES:
          key = Matrix(leaves[name], layer, root).key(half)
          arrays[key] = to_file(half, stacks[f"{name}_lora_{half.lower()}"][layer])
    tensor_files.write_file(folder / WEIGHTS_FILE, arrays, dtype=dtype)

    config = _config(architecture, lora, n_layers, root) | {"base_model_name_or_path": base}
    files.write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
    if also is not None:
      also(folder)
  return Path(directory)


def _checked(
  architecture: Architecture, lora: Lora, params: dict[str, Any]
) -> dict[str, np.ndarray]:
  """The stacks on the host. Raises NLAError where one is missing, too many, of another shape or not finite."""
  leaves = adapted_leaves(architecture)
  stacks = {name: np.asarray(sharding.fetch(x)) for name, x in sorted(params["layers"].items())}
  expected = {}
  for name in lora.targets:
    a, b = our_shapes(leaves[name], architecture, lora.rank)
    expected |= {f"{name}_lora_a": a, f"{name}_lora_b": b}
  if not expected or stacks.keys() != expected.keys():
    raise NLAError(
      f"the adapter to be written holds {sorted(stacks)}, its targets ask for {sorted(expected)}"
    )

  # The first stack says how many blocks there are.
  n_layers = len(next(iter(stacks.values())))
  if not 1 <= n_layers <= architecture.n_layers:
    raise NLAError(
      f"the adapter to be written has {n_layers} blocks, its base has {architecture.n_layers}"
    )
  for name, stack in stacks.items():
    if stack.shape != (n_layers, *expected[name]):
      raise NLAError(
        f"the adapter's {name} has shape {list(stack.shape)}, expected {[n_layers, *expected[name]]}"
      )
    if not np.isfinite(stack.astype(np.float32)).all():
      raise NLAError(f"the adapter's {name} holds NaN or infinity: take an earlier checkpoint")
  return stacks


def _config(architecture: Architecture, lora: Lora, n_layers: int, root: str) -> dict[str, Any]:
  """What adapter_config.json says besides the base."""
  leaves = adapted_leaves(architecture)
  modules = [module_of(leaves[name]) for name in lora.targets]
  above = n_layers < architecture.n_layers

  # Servers read lists of last names best. In a multimodal model these names also stand in the image tower, and
  # layers_to_transform counts there too, so only there an expression says the whole path.
  targets: Any = [module.split(".")[-1] for module in modules]
  if is_multimodal(root):
    numbers = "|".join(map(str, range(n_layers))) if above else r"\d+"
    names = "|".join(map(re.escape, modules))
    targets = rf"{re.escape(root)}layers\.({numbers})\.({names})"
    above = False

  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": lora.rank,
    # PEFT declares an integer; a scale that was folded need not be one.
    "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
    "target_modules": targets,
    "layers_to_transform": list(range(n_layers)) if above else None,
    "layers_pattern": None,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_dora": False,
    "use_rslora": False,
  }
