"""A tiny pair as other tools leave it: a base model, an AV with whole weights, an AR of its first blocks."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from nla_jax.autoencoder import prompts
from nla_jax.interop.base_models import huggingface
from nla_jax.interop.base_models.tokenizers import save_tokenizer
from nla_jax.interop.pairs import sidecar as s
from nla_jax.interop.pairs.write import write_ar, write_av

LAYER = 1


class Folders(NamedTuple):
  """Where the parts lie."""

  base: Path
  av: Path
  ar: Path


def write_pair(
  folder: Path, model: Path, tokenizer, av_template: str = prompts.AV_TEMPLATE, training=None
) -> Folders:
  """Writes base/, av/ and ar/ from a model's directory; the AR's head is near the identity.

  `av_template` is the AV's prompt; `training` are further facts of the sidecar.
  """
  base = shutil.copytree(model, folder / "base")
  save_tokenizer(tokenizer, base)
  architecture = huggingface.architecture_from_config(huggingface.read_config(base))
  params = huggingface.read_params(base, architecture)
  d, live = architecture.d_model, prompts.make_prompts(tokenizer, av_template)
  side = s.ModelSidecar(
    role="av",
    stage="rl",
    base_checkpoint=str(base),
    d_model=d,
    injection_scale=8.0,
    mse_scale=math.sqrt(d),
    tokens=s.tokens_of(live),
    av_template=live.av_template,
    ar_template=live.ar_template,
    layer_index=LAYER,
    training={"max_new_tokens": 8, **(training or {})},
  )
  write_av(folder / "av", architecture, params, tokenizer, side)

  lower = architecture.lower(LAYER + 1)
  cut = {
    "embedding": params["embedding"],
    "layers": {name: array[: LAYER + 1] for name, array in params["layers"].items()},
  }
  head = np.eye(d) + 0.05 * np.random.default_rng(5).standard_normal((d, d))
  ar_side = dataclasses.replace(side, role="ar")
  write_ar(folder / "ar", lower, cut, head.astype(np.float32), tokenizer, ar_side)
  return Folders(base, folder / "av", folder / "ar")


def edit(path: Path, change) -> None:
  """Rewrites a safetensors file with what `change` makes of its {name: array}."""
  arrays = load_file(path)
  arrays = change(arrays) or arrays
  save_file(
    {name: np.ascontiguousarray(array) for name, array in arrays.items()},
    path,
    metadata={"format": "pt"},
  )
