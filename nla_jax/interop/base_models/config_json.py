"""Two-way table between `config.json` of transformers 4 and 5 and our `Architecture`.

`config_attention` has the keys of rope and attention windows, which transformers 4 and 5 spell differently.
"""

import copy
import dataclasses
from typing import Any

from nla_jax.errors import NLAError, first_line, shown
from nla_jax.interop.base_models.config_attention import (
  Keys,
  rope_from_config,
  rope_to_config,
  windows_from_config,
  windows_to_config,
)
from nla_jax.models.architectures import Architecture


@dataclasses.dataclass(frozen=True)
class _Family:
  """What a `config.json` of this family may leave out.

  Attributes:
    hf_class: the class of transformers that loads it.
    tied: whether embedding and unembedding are one matrix where the file does not say.
    defaults: values of keys that the file does not hold.
  """

  hf_class: str
  tied: bool
  defaults: dict[str, Any]


# Files of Gemma 3 hold only what differs from transformers' own defaults. The other families spell out everything
# that varies.
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
  """Returns the language model's config: the inner one of Gemma 3's multimodal wrapper, else `config` itself."""
  if config.get("model_type") != "gemma3":
    return config

  inner = dict(config.get("text_config") or {})
  inner["model_type"] = "gemma3_text"

  # The wrapper names the special tokens; the text part alone must still say where an answer ends.
  for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
    if key in config:
      inner.setdefault(key, config[key])
  return inner


def architecture_from_config(config: dict[str, Any]) -> Architecture:
  """The `Architecture` that a `config.json` describes.

  Raises:
    NLAError: the model type, its activation, rope scaling or another option is not supported, a key is missing, or
      holds something else than it should.
  """
  try:
    return _architecture(text_config(config))
  except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as error:
    # Keys that hold keys of their own, where the file has another thing.
    raise NLAError(
      f"config.json holds a value of another kind than its key has ({type(error).__name__}: {first_line(error)}): "
      "take the file from the model's own repository"
    ) from error


def _architecture(config: dict[str, Any]) -> Architecture:
  family = _supported_family(config)
  keys, gemma = Keys(config, family, FAMILIES[family].defaults), family == "gemma3_text"

  activation = _activation(keys, gemma)
  d_model, n_heads = keys.value("hidden_size"), keys.value("num_attention_heads")
  n_layers = keys.value("num_hidden_layers")
  theta, scaling, theta_local = rope_from_config(keys, gemma)
  tied = config.get("tie_word_embeddings")

  # Older files name neither heads of keys nor their width: then a query head has its own key head, and heads share
  # d_model evenly.
  n_kv_heads = keys.given("num_key_value_heads") or n_heads
  head_dim = keys.given("head_dim") or d_model // n_heads
  if n_heads % n_kv_heads or not head_dim:
    raise NLAError(
      f"config.json has {n_heads} heads, {n_kv_heads} of keys and values, and a width of {d_model}, which cannot be "
      "shared evenly: take the file from the model's own repository"
    )
  return Architecture(
    family=family,
    vocab_size=keys.value("vocab_size"),
    d_model=d_model,
    n_layers=n_layers,
    n_heads=n_heads,
    n_kv_heads=n_kv_heads,
    head_dim=head_dim,
    d_ff=keys.value("intermediate_size"),
    rope_theta=theta,
    rms_eps=float(keys.value("rms_norm_eps")),
    max_positions=keys.value("max_position_embeddings"),
    tied=FAMILIES[family].tied if tied is None else bool(tied),
    # No key says these: transformers has them in the family's code.
    attention_bias=family == "qwen2",
    qk_norm=family in ("qwen3", "gemma3_text"),
    activation=activation,
    norm_offset=1.0 if gemma else 0.0,
    embedding_scale=d_model**0.5 if gemma else 1.0,
    sandwich_norm=gemma,
    query_scale=keys.value("query_pre_attn_scalar") ** -0.5 if gemma else None,
    rope_scaling=scaling,
    rope_theta_local=theta_local,
    windows=windows_from_config(keys, gemma, n_layers),
  )


def _supported_family(config: dict[str, Any]) -> str:
  """The config's model type. Raises NLAError where it, or one of its options, is not supported."""
  name = config.get("model_type")
  if not isinstance(name, str) or name not in FAMILIES:
    raise NLAError(
      f"config.json has model_type {shown(name)}; supported are {', '.join(FAMILIES)} (and gemma3's "
      "text part): choose a model of one of these families, or add the family to "
      "nla_jax/interop/base_models/config_json.py and its tensors' names to parameter_names.py"
    )

  # Such a model would load and run, and compute something else: it is refused here, before any weight is read.
  for key, allowed in _UNSUPPORTED.items():
    if config.get(key) not in allowed:
      raise NLAError(
        f"config.json of this {name} model sets {key}={shown(config[key])}, which is not supported: "
        "choose a model without it"
      )
  return name


def _activation(keys: Keys, gemma: bool) -> str:
  """Our name of the MLP's activation function. Raises NLAError where we do not have it."""
  # Gemma has a key of its own for it.
  found = keys.value("hidden_activation") if gemma else keys.config.get("hidden_act", "silu")
  if not isinstance(found, str) or found not in _ACTIVATIONS:
    raise NLAError(
      f"config.json asks for the activation {shown(found)}; supported are "
      f"{', '.join(_ACTIVATIONS)}: choose another model"
    )
  return _ACTIVATIONS[found]


def config_from_architecture(
  architecture: Architecture, base_config: dict[str, Any] | None = None, *, dtype: str = "float32"
) -> dict[str, Any]:
  """Returns the `config.json` of a text-only causal language model.

  Args:
    architecture: what is written.
    base_config: the `config.json` that the model came from; its other keys are kept, with `architectures`
      unchanged (Gemma 3's multimodal wrapper becomes its text part).
    dtype: of the tensors in the file, `float32` or `bfloat16`.
  """
  a = architecture
  base = base_config or {}

  # 1. What the base config says of other things is kept.
  config = {
    key: copy.deepcopy(item) for key, item in text_config(base).items() if key not in _DROPPED
  }
  wrapped = base.get("model_type") == "gemma3"
  if wrapped or not config.get("architectures"):
    config["architectures"] = [FAMILIES[a.family].hf_class]

  # 2. The model itself. `torch_dtype` is the older name of `dtype`; readers of either are served.
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
  return config | windows_to_config(a) | rope_to_config(a)


def _scalar_of_scale(scale: float) -> int | float:
  """Gemma's `query_pre_attn_scalar` of a query scale."""
  # Published files hold an integer, which the inverse square of a rounded root can miss by an ulp.
  scalar = scale**-2
  return round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar
