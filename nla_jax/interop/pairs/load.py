"""Loads a pair from its two Hugging Face directories as an `NLA`."""

import functools
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.autoencoder.prompts import Prompts, make_prompts
from nla_jax.errors import NLAError, shown
from nla_jax.interop.adapters.merge import with_adapter
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models.find import cached_directory, locate
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.adapted import find_base
from nla_jax.interop.pairs.beforehand import check_base
from nla_jax.interop.pairs.directories import Checkpoint, read_checkpoint
from nla_jax.interop.pairs.find import pair_directories
from nla_jax.interop.pairs.magnitude_file import read_magnitude
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import joined
from nla_jax.models.parameters import as_base, kept_narrow
from nla_jax.parallel import sharding
from nla_jax.parallel.precision import compute_dtype


def load_target(
  base: str,
  layer: int | None,
  adapter: str = "",
  pair: Pair | None = None,
  dtype: str = "float32",
) -> tuple[Architecture, Any]:
  """Loads the target that an NLA reads with, or steers.

  Args:
    base: its name, as for `config.model`.
    layer: K, 0-based; blocks 0..K are loaded. None for the whole model, which can continue text.
    adapter: directory of a LoRA on it; empty for none.
    pair: whose tokens it is to read; None where it is the model that the pair was made from.
    dtype: of its parameters: `float32`, `bfloat16` or `auto`, as `load_pretrained`.

  Returns:
    The architecture and the parameters.
  """
  # The adapter is checked, against the whole model, before any weight is read.
  layers = None if layer is None else layer + 1
  added = read_adapter(adapter, find_base(base).architecture, layers=layers) if adapter else None
  here = pair is not None and _is_here(base)
  if here:
    check_base(find_base(base), pair)
  # What is added to a matrix is lost where the sum is rounded.
  dtype = dtype if added is None else "float32"
  found = load_pretrained(base, stop_layer=layer, dtype=dtype)
  if pair is not None and not here:
    check_base(found, pair)
  params = found.params if added is None else with_adapter(found.params, added)
  return found.architecture, kept_narrow(params)


def weights_dtype(weights: str, compute: str) -> str:
  """The dtype that weights are kept in, for `load_pretrained`.

  Args:
    weights: `float32`, `bfloat16`, or `auto`: bfloat16 where products are computed so, or where the files hold it.
    compute: as `nla_jax.load`.

  Raises:
    NLAError: another word.
  """
  if weights not in ("auto", "float32", "bfloat16"):
    raise NLAError(f"weights={weights!r}: expected auto, float32 or bfloat16")
  narrow = weights == "auto" and compute_dtype(compute) == jnp.bfloat16
  return "bfloat16" if narrow else weights


def _is_here(base: str) -> bool:
  """Whether a model can be looked at without fetching it."""
  return locate(base).kind != "remote" or cached_directory(base) is not None


def load_directories(
  path: str | os.PathLike,
  ar: str | os.PathLike | None = None,
  *,
  compute: str = "auto",
  weights: str = "auto",
  base: str | None = None,
  model_adapter: str = "",
  chat_template: str = "",
) -> NLA:
  """Loads the pair of an AV's and an AR's directory; arguments and errors are those of `nla_jax.load`."""
  kept = weights_dtype(weights, compute)
  # 1. The two halves, found and checked against each other before any weight is read.
  av_folder, ar_folder = pair_directories(path, ar, base=base, chat_template=chat_template)
  av, rebuilder = (
    read_checkpoint(folder, role, dtype=kept, base=base, chat_template=chat_template)
    for folder, role in ((av_folder, "av"), (ar_folder, "ar"))
  )
  side, training = av.sidecar, av.sidecar.training
  magnitude = read_magnitude(Path(ar_folder), rebuilder.sidecar.training, av.architecture.d_model)

  # 2. What they compute. The AR's sidecar is the one that must say the layer.
  pair = make_pair(
    av.architecture,
    av.tokenizer,
    _prompts_of(av, rebuilder),
    PairSettings(
      layer=rebuilder.sidecar.layer_index,
      scale=side.injection_scale,
      # Keys of ours, which another tool's sidecar lacks.
      mode=training.get("inject_mode", "replace"),
      map="scalar" if av.injection is None else "affine",
      max_new_tokens=_max_new_tokens(training, av_folder, av.architecture),
      dtype=compute_dtype(compute),
      lora=av.lora,
      ar_lora=rebuilder.lora,
      ar_lines=_ar_lines(training, av_folder),
    ),
  )
  if base is not None and _is_here(base):
    check_base(find_base(base), pair)

  # 3. Their parameters; files hold the head, the map and adapters whole, so they are laid out here.
  injection = {} if av.injection is None else {"injection": av.injection}
  av_params = sharding.shard_params({"transformer": av.params, **injection})
  head = {"weight": rebuilder.head}
  ar_params = sharding.shard_params({"transformer": rebuilder.params, "head": head})

  # 4. The base of adapters, once for both.
  base = base or side.base_checkpoint
  if av.lora or rebuilder.lora:
    shared = as_base(load_pretrained(base).params)
    av_params = joined(av_params, shared if av.lora else None)
    ar_params = joined(ar_params, shared if rebuilder.lora else None)
  # The variance of its evaluation's activations, where the pair says it: explanations then come with their FVE.
  baseline = _baseline(training, av_folder)
  load = functools.partial(load_target, pair=pair, dtype=kept)
  nla = NLA(pair, av_params, ar_params, base, baseline, load, model_adapter)
  nla.magnitude = magnitude
  return nla


def _ar_lines(training: dict, folder: str | Path) -> int:
  """How many lines the AR reads apart. Raises NLAError where the sidecar says something else."""
  found = training.get("ar_lines", 1)
  if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= 64:
    raise NLAError(
      f"{folder}: the sidecar says training.ar_lines: {shown(found)}, expected 1 to 64"
    )
  return found


def _max_new_tokens(training: dict, folder: str | Path, architecture: Architecture) -> int:
  """The cap on the AV's answers. Raises NLAError where its sidecar's is none that the model could reach."""
  # Another tool's sidecar does not say it.
  found = training.get("max_new_tokens", min(150, architecture.max_positions))
  whole = isinstance(found, int) and not isinstance(found, bool)
  if not whole or not 0 < found <= architecture.max_positions:
    raise NLAError(
      f"{folder}: the sidecar says training.max_new_tokens: {shown(found)}, expected an integer from 1 to "
      f"{architecture.max_positions}, the positions of the model: correct it"
    )
  return found


def _baseline(training: dict, folder: str | Path) -> float | None:
  """The variance that FVE is measured against. Raises NLAError where the AV's sidecar holds no such number."""
  found = training.get("baseline_variance")
  if found is None:
    return None
  is_number = isinstance(found, int | float) and not isinstance(found, bool)
  # Of directions, it is at most 1; see `fve.baseline_variance`.
  if not is_number or not 0 < found < 1 + 1e-6:
    raise NLAError(
      f"{folder}: the sidecar says training.baseline_variance: {shown(found)}, expected a number between 0 and 1: "
      "correct it, or leave it out"
    )
  return float(found)


def _prompts_of(av: Checkpoint, ar: Checkpoint) -> Prompts:
  """The prompts of both halves: the AR's sidecar is the one that must say its template."""
  side = av.sidecar
  return make_prompts(
    av.tokenizer, side.av_template, ar.sidecar.ar_template, side.tokens.injection_char, av.ends
  )
