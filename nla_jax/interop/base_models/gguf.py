"""Reads GGUF files: header to `Architecture` and tokenizer, quantised tensors to float32 parameters, without torch.

Three differences between GGUF and Hugging Face are undone here. Llama files interleave the rows of query and key (GGML
rotates neighbouring pairs, Hugging Face halves). Llama 3's rope scaling is a tensor, not a header key. Norms that
multiply by 1 + w (Gemma) are stored as that sum. `FAMILIES` holds what a family has beyond the common keys.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.interop.base_models import parameter_names, strays
from nla_jax.interop.base_models.gguf_files import open_gguf
from nla_jax.interop.base_models.gguf_tokenizer import end_ids
from nla_jax.interop.base_models.record import Pretrained, hash_tokenizer
from nla_jax.models.architectures import Architecture, RopeScaling


def _gemma3_values(value: Callable, common: Architecture, path: Path) -> dict[str, Any]:
  """What Gemma 3 has beyond the common keys; llama.cpp knows most of it from the family's name alone."""
  # Either would compute something that our decoder does not.
  for key, expected in (
    ("final_logit_softcapping", 0.0),
    ("attention.value_length", common.head_dim),
  ):
    if value(key, expected) != expected:
      raise NLAError(
        f"{path.name} sets gemma3.{key} to {value(key)}, only {expected} is supported: choose a "
        "model without it"
      )

  window, period = value("attention.sliding_window"), value("attention.sliding_window_pattern", 6)
  if not isinstance(period, int):
    raise NLAError(
      f"{path.name} lists its sliding windows layer by layer; a period such as 6 is supported: use "
      "the model's Hugging Face directory instead"
    )

  # No key holds the query scale. Of the sizes published, only 27B (62 blocks) does not divide by sqrt(head_dim).
  width = common.d_model // common.n_heads if common.n_layers == 62 else common.head_dim
  return {
    "activation": "gelu_tanh",
    "norm_offset": 1.0,
    "embedding_scale": common.d_model**0.5,
    "sandwich_norm": True,
    "query_scale": width**-0.5,
    "rope_theta_local": _as_written(value("rope.freq_base_swa", 10000.0)),
    "windows": tuple(window if (layer + 1) % period else 0 for layer in range(common.n_layers)),
  }


def _no_values(value: Callable, common: Architecture, path: Path) -> dict[str, Any]:
  """Most families have nothing beyond the common keys."""
  return {}


@dataclasses.dataclass(frozen=True)
class _Family:
  """What a GGUF family has of its own.

  Attributes:
    name: our family.
    interleaved: query and key have their rows in GGML's order.
    values: function of (value of a header key, the `Architecture` of the common keys, path); returns the fields of
      `Architecture` that the common keys do not give.
  """

  name: str
  interleaved: bool = False
  values: Callable[[Callable, Architecture, Path], dict[str, Any]] = _no_values


FAMILIES = {  # by general.architecture
  "llama": _Family("llama", interleaved=True),
  "qwen2": _Family("qwen2"),
  "qwen3": _Family("qwen3"),
  "gemma3": _Family("gemma3_text", values=_gemma3_values),
}


def read_gguf(
  path: str | Path, stop_layer: int | None = None, *, dtype: str = "float32", weights: bool = True
) -> Pretrained:
  """Reads a model and its tokenizer from a GGUF file, or from one in parts.

  Args:
    path: the file, or any of its parts.
    stop_layer: K, 0-based; only blocks 0..K are dequantised, without final norm and unembedding.
    dtype: of the parameters, `float32` or `bfloat16`.
    weights: dequantise the parameters too.

  Raises:
    NLAError: the file is missing, truncated, no GGUF, of a family that is not known, or more than the decoder has.
  """
  # 1. The header, and where the tensors lie in the mapped file.
  path = Path(path)
  opened = open_gguf(path)
  header, tensors = opened.header, opened.tensors
  architecture = architecture_from_header(header, tensors, path)
  strays.passed_over_gguf(tensors, architecture, path)

  headless = stop_layer is not None
  if headless:
    if not 0 <= stop_layer < architecture.n_layers:
      raise NLAError(
        f"layer {stop_layer} was asked for, but {path.name} has blocks "
        f"0..{architecture.n_layers - 1}"
      )
    architecture = architecture.lower(stop_layer + 1)

  # 2. The tokenizer comes before the weights: where it cannot be rebuilt, nothing slow has been done.
  tokenizer = opened.tokenizer

  # 3. The weights. Beside the parameters at most one tensor exists as float32.
  params = None
  if weights:
    interleaved = FAMILIES[header["general.architecture"]].interleaved
    read = functools.partial(
      _read_tensor, tensors, architecture=architecture, interleaved=interleaved, path=path
    )
    params = parameter_names.tree_from_file(read, architecture, headless=headless, dtype=dtype)
  return Pretrained(
    architecture=architecture,
    params=params,
    tokenizer=tokenizer,
    source=str(path),
    model_hash=opened.hash,
    tokenizer_hash=hash_tokenizer(tokenizer),
    ends=end_ids(header),
  )


def read_header(path: str | Path) -> dict[str, Any]:
  """The key/value pairs of a GGUF file; tensors are not read. Raises NLAError as `read_gguf` does."""
  return open_gguf(path).header


def architecture_from_header(
  header: dict[str, Any], tensors: dict[str, Any], path: Path
) -> Architecture:
  """Returns the `Architecture` that a GGUF header describes.

  Args:
    header: the file's key/value pairs.
    tensors: {name: tensor}; some facts show only in which tensors there are.
    path: the file, for messages.

  Raises:
    NLAError: the family or its rope scaling is not supported, or a key is missing.
  """
  kind = header.get("general.architecture")
  if kind not in FAMILIES:
    raise NLAError(
      f"{path.name} holds a {kind!r} model; GGUF is read for {', '.join(FAMILIES)}: use the "
      "model's Hugging Face directory instead"
    )

  def value(key: str, default=None):
    found = header.get(f"{kind}.{key}", default)
    if found is None:
      raise NLAError(f"GGUF header of {path.name} lacks {kind}.{key}: convert the model again")
    return found

  # 1. What every family's header holds.
  d_model, n_heads = value("embedding_length"), value("attention.head_count")
  if "token_embd.weight" not in tensors:
    raise NLAError(
      f"{path.name} holds no token_embd.weight: it is not a whole model, fetch it again"
    )
  family = FAMILIES[kind]
  common = Architecture(
    family=family.name,
    vocab_size=int(tensors["token_embd.weight"].shape[1]),
    d_model=d_model,
    n_layers=value("block_count"),
    n_heads=n_heads,
    n_kv_heads=value("attention.head_count_kv", n_heads),
    head_dim=value("attention.key_length", d_model // n_heads),
    d_ff=value("feed_forward_length"),
    rope_theta=_as_written(value("rope.freq_base", 10000.0)),
    rms_eps=_as_written(value("attention.layer_norm_rms_epsilon")),
    max_positions=value("context_length"),
    # No key says these: the tensors are there or not.
    tied="output.weight" not in tensors,
    attention_bias="blk.0.attn_q.bias" in tensors,
    qk_norm="blk.0.attn_q_norm.weight" in tensors,
  )

  # 2. What the family adds.
  return dataclasses.replace(
    common,
    rope_scaling=_rope_scaling(value, tensors, common, path),
    **family.values(value, common, path),
  )


def _as_written(value: float) -> float:
  """The decimal that was meant before the file rounded it to float32.

  1e-5 is stored as 9.999999747e-06; the shortest decimal of that float32 is 1e-5 again.
  """
  return float(str(np.float32(value)))


def _rope_scaling(
  value: Callable, tensors: dict, architecture: Architecture, path: Path
) -> RopeScaling | None:
  """The rope's scaling; None without one. Raises NLAError where we do not have it."""
  kind = value("rope.scaling.type", "none")
  if kind == "linear":
    return RopeScaling(kind="linear", factor=float(value("rope.scaling.factor")))
  if kind != "none":
    raise NLAError(
      f"{path.name} uses rope scaling {kind!r}; none, linear and llama3 are supported: choose "
      "another model"
    )
  if "rope_freqs.weight" not in tensors:
    return None

  # The tensor divides each frequency. Every Llama 3.x release has bounds 1 and 4 on 8192 positions: check it.
  divisors = np.asarray(tensors["rope_freqs.weight"].data, np.float32)
  scaling = RopeScaling(kind="llama3", factor=float(divisors.max()))
  exponents = np.arange(0, architecture.head_dim, 2) / architecture.head_dim
  wavelengths = 2 * np.pi * architecture.rope_theta**exponents
  ratio = scaling.original_max_positions / wavelengths
  smooth = (ratio - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
  smooth = np.clip(smooth, 0.0, 1.0)
  expected = 1 / (smooth + (1 - smooth) / scaling.factor)

  if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-3):
    raise NLAError(
      f"{path.name} has rope_freqs that are not Llama 3's: use the model's Hugging Face directory"
    )
  return scaling


def _read_tensor(
  tensors: dict,
  leaf: parameter_names.Leaf,
  layer: int | None,
  architecture: Architecture,
  interleaved: bool,
  path: Path,
) -> np.ndarray:
  """One tensor as float32, in the shape and the order of rows of a Hugging Face file."""
  from gguf import dequantize  # lazy for the reason in `gguf_files`

  name = leaf.gguf.format(layer=layer)
  if name not in tensors:
    raise NLAError(
      f"{path.name} lacks the tensor {name}: the file is damaged or of another family, fetch it "
      "again"
    )

  tensor = tensors[name]
  try:
    array = dequantize(tensor.data, tensor.tensor_type)
  except NotImplementedError as error:
    raise NLAError(
      f"{path.name} stores {name} as {tensor.tensor_type.name}, which cannot be dequantised: "
      "choose another quantisation of the model"
    ) from error

  # Checked before the rows are taken apart by heads, which another model's shape may not allow.
  expected = leaf.file_shape(architecture)
  if array.shape != expected:
    raise NLAError(
      f"{path.name}: {name} has shape {list(array.shape)}, the header says {list(expected)}: "
      "fetch the file again"
    )

  if interleaved and leaf.ours in ("query", "key", "query_bias", "key_bias"):
    array = _halves_from_pairs(array, architecture.head_dim)
  return array - architecture.norm_offset if leaf.is_norm else array


def _halves_from_pairs(array: np.ndarray, head_dim: int) -> np.ndarray:
  """Puts each head's rows from GGML's order (0, n/2, 1, n/2+1, ...) back into Hugging Face's (0, 1, 2, ...)."""
  heads = array.shape[0] // head_dim
  pairs = array.reshape(heads, head_dim // 2, 2, *array.shape[1:])
  return pairs.swapaxes(1, 2).reshape(array.shape)
