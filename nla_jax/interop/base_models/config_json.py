"""Two-way table between `config.json` of transformers 4 and 5 and our `Architecture`.

transformers 5 writes `rope_parameters` (one per layer type for Gemma), 4 writes `rope_theta`, `rope_scaling`
and `rope_local_base_freq`. Both are read; both are written, because 4 falls back to theta 10000 without its
own key.
"""

import copy
import dataclasses
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.models.architectures import Architecture, RopeScaling


@dataclasses.dataclass(frozen=True)
class _Family:
  """What a `config.json` of this family may leave unsaid."""

  hf_class: str
  tied: bool
  defaults: dict[str, Any]


# Files of Gemma 3 hold only what differs from transformers' own defaults; the others spell everything that
# varies.
FAMILIES = {
  "llama": _Family("LlamaForCausalLM", False, {"rope_theta": 10000.0}),
  "qwen2": _Family("Qwen2ForCausalLM", False, {"rope_theta": 10000.0}),
  "qwen3": _Family("Qwen3ForCausalLM", False, {"rope_theta": 10000.0, "head_dim": 128}),
  "gemma3_text": _Family(
    "Gemma3ForCausalLM",
    True,
    {
      "vocab_size": 262208,
      "num_attention_heads": 8,
      "num_key_value_heads": 4,
      "head_dim": 256,
      "hidden_activation": "gelu_pytorch_tanh",
      "max_position_embeddings": 131072,
      "rms_norm_eps": 1e-6,
      "query_pre_attn_scalar": 256,
      "sliding_window": 4096,
      "rope_theta": 1e6,
      "rope_local_base_freq": 1e4,
    },
  ),
}
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Present with another value, these change the computation in a way that our decoder does not have.
_UNSUPPORTED = {
  "attention_bias": (None, False),
  "mlp_bias": (None, False),
  "attn_logit_softcapping": (None,),
  "final_logit_softcapping": (None,),
  "use_bidirectional_attention": (None, False),
  "quantization_config": (None,),
  "partial_rotary_factor": (None, 1.0),
}
# Keys of a base config that describe what is not written with it.
_DROPPED = (
  "quantization_config",
  "auto_map",
  "rope_scaling",
  "rope_parameters",
  "rope_theta",
  "rope_local_base_freq",
  "layer_types",
  "torch_dtype",
  "dtype",
  "transformers_version",
  "_name_or_path",
  "text_config",
  "vision_config",
)


def text_config(config: dict[str, Any]) -> dict[str, Any]:
  """The language model's part: of Gemma 3's multimodal wrapper the inner config, else the config itself."""
  if config.get("model_type") != "gemma3":
    return config
  inner = dict(config.get("text_config") or {})
  inner["model_type"] = "gemma3_text"
  for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
    if key in config:
      inner.setdefault(key, config[key])
  return inner


def architecture_from_config(config: dict[str, Any]) -> Architecture:
  """The `Architecture` that a `config.json` describes.

  Raises:
    NLAError: the model type, its activation, rope scaling or another option is not supported, or a key is
      missing.
  """
  config = text_config(config)
  name = config.get("model_type")
  if name not in FAMILIES:
    raise NLAError(
      f"config.json has model_type {name!r}; supported are {', '.join(FAMILIES)} (and gemma3's "
      "text part): choose a model of one of these families, or add the family to "
      "nla_jax/interop/base_models/config_json.py and its tensors' names to name_table.py"
    )
  family = FAMILIES[name]
  for key, allowed in _UNSUPPORTED.items():
    if config.get(key) not in allowed:
      raise NLAError(
        f"config.json of this {name} model sets {key}={config[key]!r}, which is not supported: "
        "choose a model without it"
      )
  gemma = name == "gemma3_text"

  def value(key: str):
    found = config.get(key)
    found = family.defaults.get(key) if found is None else found
    if found is None:
      raise NLAError(
        f"config.json of this {name} model lacks {key}: take the file from the model's own "
        "repository"
      )
    return found

  activation = value("hidden_activation") if gemma else config.get("hidden_act", "silu")
  if activation not in _ACTIVATIONS:
    raise NLAError(
      f"config.json asks for the activation {activation!r}; supported are "
      f"{', '.join(_ACTIVATIONS)}: choose another model"
    )
  d_model, n_heads, n_layers = (
    value("hidden_size"),
    value("num_attention_heads"),
    value("num_hidden_layers"),
  )
  theta, scaling, theta_local = _rope_from_config(config, value, gemma)
  tied = config.get("tie_word_embeddings")
  return Architecture(
    family=name,
    vocab_size=value("vocab_size"),
    d_model=d_model,
    n_layers=n_layers,
    n_heads=n_heads,
    n_kv_heads=config.get("num_key_value_heads")
    or family.defaults.get("num_key_value_heads")
    or n_heads,
    head_dim=config.get("head_dim") or family.defaults.get("head_dim") or d_model // n_heads,
    d_ff=value("intermediate_size"),
    rope_theta=theta,
    rms_eps=float(value("rms_norm_eps")),
    max_positions=value("max_position_embeddings"),
    tied=family.tied if tied is None else bool(tied),
    attention_bias=name == "qwen2",
    qk_norm=name in ("qwen3", "gemma3_text"),
    activation=_ACTIVATIONS[activation],
    norm_offset=1.0 if gemma else 0.0,
    embedding_scale=d_model**0.5 if gemma else 1.0,
    sandwich_norm=gemma,
    query_scale=value("query_pre_attn_scalar") ** -0.5 if gemma else None,
    rope_scaling=scaling,
    rope_theta_local=theta_local,
    windows=_windows_from_config(config, value, gemma, n_layers),
  )


def _rope_from_config(config, value, gemma: bool) -> tuple[float, RopeScaling | None, float | None]:
  """(theta, scaling, theta of sliding-window layers or None)."""
  parameters = dict(config.get("rope_parameters") or {})
  local = None
  if gemma:
    sliding = parameters.get("sliding_attention") or {}
    local = float(sliding.get("rope_theta") or value("rope_local_base_freq"))
    if sliding.get("rope_type", "default") != "default":
      raise NLAError(
        f"config.json scales the rope of sliding-window layers ({sliding['rope_type']}), which "
        "is not supported: choose another model"
      )
    parameters = dict(parameters.get("full_attention") or {})
  parameters = {**(config.get("rope_scaling") or {}), **parameters}
  theta = float(parameters.get("rope_theta") or value("rope_theta"))
  kind = parameters.get("rope_type") or parameters.get("type") or "default"
  if kind == "default":
    return theta, None, local
  try:
    if kind == "linear":
      return theta, RopeScaling(kind="linear", factor=float(parameters["factor"])), local
    if kind == "llama3":
      return (
        theta,
        RopeScaling(
          kind="llama3",
          factor=float(parameters["factor"]),
          low_freq_factor=float(parameters["low_freq_factor"]),
          high_freq_factor=float(parameters["high_freq_factor"]),
          original_max_positions=int(parameters["original_max_position_embeddings"]),
        ),
        local,
      )
  except KeyError as error:
    raise NLAError(
      f"config.json asks for {kind} rope scaling without {error}: take the file from the "
      "model's own repository"
    ) from error
  raise NLAError(
    f"config.json asks for rope scaling {kind!r}; default, linear and llama3 are supported: "
    "choose another model or remove the scaling"
  )


def _windows_from_config(config, value, gemma: bool, n_layers: int) -> tuple[int, ...] | None:
  kinds = config.get("layer_types")
  if gemma and kinds is None:
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    kinds = [
      "sliding_attention" if (layer + 1) % pattern else "full_attention"
      for layer in range(n_layers)
    ]
  if not gemma:
    if not config.get("use_sliding_window"):
      return None
    if kinds is None:
      first = config.get("max_window_layers", n_layers)
      kinds = [
        "sliding_attention" if layer >= first else "full_attention" for layer in range(n_layers)
      ]
  if len(kinds) != n_layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
    raise NLAError(
      f"config.json has {len(kinds)} layer_types of kinds {sorted(set(kinds))} for {n_layers} "
      "layers; one of sliding_attention or full_attention a layer is needed: "
      "correct layer_types"
    )
  windows = tuple(value("sliding_window") if kind == "sliding_attention" else 0 for kind in kinds)
  return windows if gemma or any(windows) else None


def config_from_architecture(
  architecture: Architecture, base_config: dict[str, Any] | None = None, *, dtype: str = "float32"
) -> dict[str, Any]:
  """The `config.json` of a text-only causal language model.

  Args:
    architecture: what is written.
    base_config: the `config.json` that the model came from; its other keys are kept, with `architectures`
      unchanged (Gemma 3's multimodal wrapper becomes its text part).
    dtype: of the tensors in the file, `float32` or `bfloat16`.
  """
  a = architecture
  base = base_config or {}
  config = {
    key: copy.deepcopy(item) for key, item in text_config(base).items() if key not in _DROPPED
  }
  wrapped = base.get("model_type") == "gemma3"
  if wrapped or not config.get("architectures"):
    config["architectures"] = [FAMILIES[a.family].hf_class]
  gemma = a.family == "gemma3_text"
  config |= {
    "model_type": a.family,
    "vocab_size": a.vocab_size,
    "hidden_size": a.d_model,
    "num_hidden_layers": a.n_layers,
    "num_attention_heads": a.n_heads,
    "num_key_value_heads": a.n_kv_heads,
    "head_dim": a.head_dim,
    "intermediate_size": a.d_ff,
    "rms_norm_eps": a.rms_eps,
    "max_position_embeddings": a.max_positions,
    "tie_word_embeddings": a.tied,
    "dtype": dtype,
    "torch_dtype": dtype,
  }
  config["hidden_activation" if gemma else "hidden_act"] = (
    "gelu_pytorch_tanh" if gemma else a.activation
  )
  if gemma:
    config["query_pre_attn_scalar"] = _scalar_of_scale(a.query_scale)
  if a.windows is not None:
    config["layer_types"] = [
      "sliding_attention" if window else "full_attention" for window in a.windows
    ]
    if any(a.windows):
      config["sliding_window"] = max(a.windows)
    if not gemma:
      config["use_sliding_window"] = True
  elif a.family in ("qwen2", "qwen3"):
    config |= {
      "layer_types": ["full_attention"] * a.n_layers,
      "use_sliding_window": False,
      "sliding_window": None,
    }
  return config | _rope_to_config(a)


def _scalar_of_scale(scale: float) -> int | float:
  scalar = scale**-2
  return round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar


def _rope_to_config(a: Architecture) -> dict[str, Any]:
  scaling = {"rope_type": "default"}
  if a.rope_scaling is not None:
    scaling = {"rope_type": a.rope_scaling.kind, "factor": a.rope_scaling.factor}
    if a.rope_scaling.kind == "llama3":
      scaling |= {
        "low_freq_factor": a.rope_scaling.low_freq_factor,
        "high_freq_factor": a.rope_scaling.high_freq_factor,
        "original_max_position_embeddings": a.rope_scaling.original_max_positions,
      }
  out: dict[str, Any] = {"rope_theta": a.rope_theta}
  if a.rope_scaling is not None:
    out["rope_scaling"] = scaling
  parameters = {"rope_theta": a.rope_theta, **scaling}
  if a.rope_theta_local is not None:
    out["rope_local_base_freq"] = a.rope_theta_local
    parameters = {
      "full_attention": parameters,
      "sliding_attention": {"rope_theta": a.rope_theta_local, "rope_type": "default"},
    }
  return out | {"rope_parameters": parameters}
