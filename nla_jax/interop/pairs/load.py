"""Loads a pair from its two Hugging Face directories as an `NLA`."""

import os
from typing import Any

from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.interop.adapters.merge import with_adapter
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.adapted import find_base
from nla_jax.interop.pairs.directories import read_checkpoint
from nla_jax.interop.pairs.find import pair_directories
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import joined
from nla_jax.models.parameters import as_base
from nla_jax.parallel import sharding
from nla_jax.parallel.precision import compute_dtype


def load_target(base: str, layer: int, adapter: str = "") -> tuple[Architecture, Any]:
  """Loads the target that `NLA.read` reads with.

  Args:
    base: its name, as for `config.model`.
    layer: K, 0-based; blocks 0..K are loaded.
    adapter: directory of a LoRA on it; empty for none.

  Returns:
    The architecture and the parameters.
  """
  # The adapter is checked, against the whole model, before any weight is read.
  added = read_adapter(adapter, find_base(base).architecture, layers=layer + 1) if adapter else None
  found = load_pretrained(base, stop_layer=layer)
  params = found.params if added is None else with_adapter(found.params, added)
  return found.architecture, params


def load_directories(
  path: str | os.PathLike,
  ar: str | os.PathLike | None = None,
  *,
  compute: str = "auto",
  base: str | None = None,
  model_adapter: str = "",
) -> NLA:
  """Loads the pair of an AV's and an AR's directory; arguments and errors are those of `nla_jax.load`."""
  # 1. The two halves, found and checked against each other before any weight is read.
  av_folder, ar_folder = pair_directories(path, ar, base=base)
  av, rebuilder = (
    read_checkpoint(folder, role, base=base)
    for folder, role in ((av_folder, "av"), (ar_folder, "ar"))
  )
  side, training = av.sidecar, av.sidecar.training

  # 2. What they compute. The AR's sidecar is the one that must say template and layer.
  prompts = make_prompts(
    av.tokenizer, side.av_template, rebuilder.sidecar.ar_template, side.tokens.injection_char
  )
  pair = make_pair(
    av.architecture,
    av.tokenizer,
    prompts,
    PairSettings(
      layer=rebuilder.sidecar.layer_index,
      scale=side.injection_scale,
      # Keys of ours, which another tool's sidecar lacks.
      mode=training.get("inject_mode", "replace"),
      map="scalar" if av.injection is None else "affine",
      max_new_tokens=int(training.get("max_new_tokens", 150)),
      dtype=compute_dtype(compute),
      lora=av.lora,
      ar_lora=rebuilder.lora,
    ),
  )

  # 3. Their parameters; files hold the head, the map and adapters whole, so they are laid out here.
  av_params = {"transformer": av.params}
  if av.injection is not None:
    av_params["injection"] = av.injection
  ar_params = {"transformer": rebuilder.params, "head": {"weight": rebuilder.head}}
  av_params, ar_params = sharding.shard_params(av_params), sharding.shard_params(ar_params)

  # 4. The base of adapters, once for both.
  base = base or side.base_checkpoint
  if av.lora or rebuilder.lora:
    shared = as_base(load_pretrained(base).params)
    av_params = joined(av_params, shared if av.lora else None)
    ar_params = joined(ar_params, shared if rebuilder.lora else None)
  # The variance of its evaluation's activations, where the pair says it: explanations then come with their FVE.
  baseline = training.get("baseline_variance")
  return NLA(pair, av_params, ar_params, base, baseline, load_target, model_adapter)
