"""Any value for any key of a `config.json`: an architecture of whole numbers, or one line; nothing else."""

import json

import pytest

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.config_json import FAMILIES, architecture_from_config

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

LLAMA = {
  "model_type": "llama",
  "vocab_size": 259,
  "hidden_size": 64,
  "intermediate_size": 128,
  "num_hidden_layers": 4,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 16,
  "max_position_embeddings": 2048,
  "rope_theta": 10000.0,
  "rms_norm_eps": 1e-5,
  "hidden_act": "silu",
}
OTHERS = ["rope_scaling", "rope_parameters", "layer_types", "sliding_window", "use_sliding_window"]
OTHERS += [
  "text_config",
  "hidden_activation",
  "query_pre_attn_scalar",
  "max_window_layers",
  "mlp_bias",
]
SIZES = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
NUMBERS = [True, 0, 1, -1, 3, 64.0, 0.5, 10**400, float("nan"), float("inf")]
LEAVES = st.sampled_from([None, *NUMBERS, "", "64", "llama3", "linear", "silu", "a\nb"])
ROPE = st.dictionaries(
  st.sampled_from(
    ["rope_type", "factor", "full_attention", "sliding_attention", "low_freq_factor"]
  ),
  LEAVES,
)
VALUES = st.one_of(LEAVES, st.lists(LEAVES, max_size=4), ROPE)


@hypothesis.settings(max_examples=200, deadline=None, database=None)
@hypothesis.given(
  st.sampled_from([*FAMILIES, "gemma3"]),
  st.dictionaries(st.sampled_from([*LLAMA, *OTHERS]), VALUES, min_size=1, max_size=2),
)
def test_any_value_of_a_key_is_an_architecture_or_one_line(family, changes):
  config = LLAMA | {"model_type": family} | changes
  try:
    found = architecture_from_config(json.loads(json.dumps(config)))
  except NLAError as error:
    assert "\n" not in str(error) and len(str(error)) < 1_000
    return
  assert all(type(getattr(found, name)) is int and getattr(found, name) > 0 for name in SIZES)
  assert found.n_heads % found.n_kv_heads == 0 and found.max_positions > 0


_LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"hidden_size": "64"}, "says hidden_size: '64', expected a positive integer"),
    ({"rms_norm_eps": "1e-5"}, "says rms_norm_eps: '1e-5', expected a positive number"),
    ({"num_key_value_heads": 3}, "4 heads, 3 of keys and values"),
    ({"rope_scaling": {"rope_type": "linear", "factor": "two"}}, "of another kind than its key"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "by the factor 0: expected"),
    ({"rope_scaling": {"rope_type": "linear", "factor": -2.0}}, "by the factor -2: expected"),
    ({"rope_scaling": _LLAMA3 | {"factor": 1e999}}, "by the factor inf: expected"),
    ({"rope_scaling": _LLAMA3 | {"high_freq_factor": 1.0}}, "expected 0 < low < high"),
    ({"rope_parameters": [1]}, "of another kind than its key"),
    ({"model_type": ["llama"]}, "has model_type"),
  ],
)
def test_what_is_wrong_with_a_key_is_said(changes, said):
  with pytest.raises(NLAError, match=said):
    architecture_from_config(LLAMA | changes)
