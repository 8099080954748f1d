"""Sparse autoencoders of others, from their files: Gemma Scope 2 and SAELens, without torch.

  Gemma Scope 2   config.json  params.safetensors       w_enc w_dec b_enc b_dec threshold
  SAELens         cfg.json     sae_weights.safetensors  W_enc W_dec b_enc b_dec [threshold | topk_threshold]

What would make another autoencoder of it (a gate, a transcoder, a skip connection, a scale that the files do not hold)
is refused by its name: read as something else it would give numbers without a word.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.evaluation.sae.autoencoder import (
  CONSTANT_NORM,
  JUMP_RELU,
  LAYER_NORM,
  PLAIN,
  RELU,
  SAE,
  TOP_K,
  Kind,
)

_GEMMA, _SAELENS = ("config.json", "params.safetensors"), ("cfg.json", "sae_weights.safetensors")
_TENSORS = {"w_enc", "b_enc", "w_dec", "b_dec"}
_HOOKS = (
  # Where it was trained, and what is added to the number for our block K.
  (re.compile(r"(?:blocks|model\.layers|language_model\.layers)\.(\d+)\.hook_resid_post"), 0),
  (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), -1),
  (re.compile(r"model\.layers\.(\d+)(?:\.output)?"), 0),
)


def load(folder: str | Path, *, width: int, layer: int) -> SAE:
  """Reads a sparse autoencoder of block K's output.

  Args:
    folder: with the files of one.
    width: d, of the activations.
    layer: K, 0-based.

  Raises:
    NLAError: it is in neither format, is of something else, or is computed in a way that is not known here.
  """
  path = Path(files.here(str(folder)))
  for names, read in ((_GEMMA, _gemma_scope), (_SAELENS, _saelens)):
    if all((path / name).is_file() for name in names):
      config = files.read_json(path / names[0])
      if not isinstance(config, dict):
        raise NLAError(f"{path / names[0]} is no JSON object: fetch the file again")
      found, block = read(path, config, _tensors(path / names[1]))
      return _checked(path, found, block, width, layer)

  pickles = sorted(one.name for one in path.glob("*.pt")) if path.is_dir() else []
  seen = (
    f"holds a torch pickle ({pickles[0]}), which can run code" if pickles else "holds no such files"
  )
  raise NLAError(
    f"{folder} {seen}: expected {' and '.join(_GEMMA)} (Gemma Scope 2) or {' and '.join(_SAELENS)} (SAELens)"
  )


def _tensors(path: Path) -> dict[str, np.ndarray]:
  """The tensors by lower-case name, float32."""
  try:
    return {name.lower(): np.asarray(one, np.float32) for name, one in load_file(path).items()}
  except (SafetensorError, OSError, ValueError, KeyError) as error:
    raise NLAError(f"{path} is not a whole safetensors file ({error}): fetch it again") from error


def _gemma_scope(path: Path, config: Mapping[str, Any], tensors: dict) -> tuple[SAE, int]:
  """An autoencoder of Gemma Scope 2, and its block."""
  _expect(path, config, "architecture", ("jump_relu",))
  _expect(path, config, "type", ("sae",))
  _expect(path, config, "affine_skip_connection", (False,))

  # A transcoder reads one place and writes another.
  read, written = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
  if written not in (None, read):
    raise NLAError(
      f"{path} reads {read} and writes {written}: a transcoder, and an autoencoder is expected"
    )
  _expect_tensors(path, tensors, _TENSORS | {"threshold"})
  return _made(Kind(JUMP_RELU), tensors, tensors["threshold"]), _block(path, read)


def _saelens(path: Path, config: Mapping[str, Any], tensors: dict) -> tuple[SAE, int]:
  """An autoencoder of SAELens, and its block."""
  # Older files have the hook at the top, newer ones among the metadata.
  notes = config.get("metadata") or config.get("meta") or {}
  block = _block(path, notes.get("hook_name") or config.get("hook_name"))
  _expect(path, config, "reshape_activations", ("none",))
  _expect(path, config, "finetuning_scaling_factor", (False,))
  scaling = _expect(
    path, config, "normalize_activations", (PLAIN, CONSTANT_NORM, LAYER_NORM, "constant_norm")
  )

  activation, k = _activation(path, config)
  threshold = np.zeros(len(tensors.get("b_enc", ())), np.float32)
  wanted = set(_TENSORS)
  if activation == JUMP_RELU:
    name = "topk_threshold" if "topk_threshold" in tensors else "threshold"
    wanted |= {name}
    threshold = threshold + tensors.get(name, 0.0)
  _expect_tensors(path, tensors, wanted)

  kind = Kind(
    activation,
    k,
    minus_bias=bool(config.get("apply_b_dec_to_input", True)),
    scaling=CONSTANT_NORM if scaling == "constant_norm" else scaling or PLAIN,
    by_decoder=bool(config.get("rescale_acts_by_decoder_norm", False)),
  )
  return _made(kind, tensors, threshold), block


def _activation(path: Path, config: Mapping[str, Any]) -> tuple[str, int]:
  """The activation function that a SAELens config names, and its k."""
  name = _expect(
    path, config, "architecture", ("standard", "topk", "jumprelu", "batchtopk"), "standard"
  )
  # Before version 6 the function stood beside the architecture.
  function = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
  if function not in ("relu", "topk"):
    raise NLAError(f"{path} names the activation function {function}: expected relu or topk")
  if name in ("jumprelu", "batchtopk"):
    # After training, the mean number of a batch has become a threshold.
    return JUMP_RELU, 0
  if name == "standard" and function == "relu":
    return RELU, 0

  older = config.get("activation_fn_kwargs") or {}
  k = config.get("k", older.get("k"))
  if not isinstance(k, int) or k < 1:
    raise NLAError(f"{path} names {k} latents of topk: expected a whole number above 0")
  return TOP_K, k


def _expect(
  path: Path, config: Mapping[str, Any], key: str, known: Collection[Any], default: Any = None
) -> Any:
  """The value of a key, which must be a known one where it is there."""
  value = config.get(key, default)
  if value is None or value in known:
    return value
  raise NLAError(
    f"{path} has {key} {json.dumps(value)}, which is not read here: expected {' or '.join(map(json.dumps, known))}"
  )


def _expect_tensors(path: Path, tensors: Mapping[str, Any], wanted: set[str]) -> None:
  missing, more = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
  if missing or more:
    said = [f"lacks {', '.join(missing)}"] if missing else []
    said += [f"has {', '.join(more)} besides"] if more else []
    raise NLAError(f"{path} {' and '.join(said)}: expected the tensors {', '.join(sorted(wanted))}")


def _block(path: Path, hook: Any) -> int:
  """Our K of the place where it was trained."""
  for pattern, shift in _HOOKS:
    if isinstance(hook, str) and (found := pattern.fullmatch(hook)):
      return int(found[1]) + shift
  raise NLAError(f"{path} is of {hook}: expected the residual stream behind a block")


def _made(kind: Kind, tensors: Mapping[str, np.ndarray], threshold: np.ndarray) -> SAE:
  return SAE(
    kind, *(tensors[name] for name in ("w_enc", "b_enc", "w_dec", "b_dec")), threshold=threshold
  )


def _checked(path: Path, found: SAE, block: int, width: int, layer: int) -> SAE:
  """The autoencoder, where its shapes and its block are right."""
  if block != layer:
    raise NLAError(
      f"{path} is of block {block}'s output, the pair explains block {layer}: give one of that block"
    )
  if found.w_enc.ndim != 2 or found.w_enc.shape[0] != width:
    raise NLAError(
      f"{path} encodes {found.w_enc.shape}, the activations are {width} wide: it is of another model"
    )
  m = found.w_enc.shape[1]
  shapes = tuple(one.shape for one in found[2:])
  if shapes != ((m,), (m, width), (width,), (m,)):
    raise NLAError(
      f"{path} has tensors of shapes {shapes} beside {found.w_enc.shape}: they do not belong together"
    )
  if found.kind.activation == TOP_K and found.kind.k > m:
    raise NLAError(f"{path} keeps {found.kind.k} of {m} latents: expected fewer")
  return found
