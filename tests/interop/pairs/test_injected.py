"""However a sidecar says how the vector goes in, it is read so or refused, and never passed over."""

from pathlib import Path

import pytest

from nla_jax.errors import NLAError
from nla_jax.interop.pairs.injected import INJECTION_NOTE, injection_mode

PATH = Path("nla_meta.yaml")
PLAIN = {
  "kind": "nla_model",
  "role": "av",
  "extraction": {"injection_scale": 150.0, "mse_scale": 59.9, "norm": "none", "layer_index": 20},
  "tokens": {"injection_char": "㈎", "injection_token_id": 3, "injection_left_neighbor_id": 1},
  "prompt_templates": {
    "av": "We add the vector {injection_char} at layer 1",
    "ar": "{explanation}",
  },
  "trained_on": ["added injections"],
  "training": {
    "inject_map": "affine",
    "injection": INJECTION_NOTE,
    "max_new_tokens": 24,
    "add_bos_token": True,
    "optimizer": "adamw",
    "overwrite_output_dir": False,
    "notes": "the rows that were added last are those of the second corpus, at layer 1 of the tree",
  },
}


def test_the_formats_own_keys_say_nothing_of_it():
  assert injection_mode(PLAIN, PATH) is None


@pytest.mark.parametrize(
  "keys",
  [
    {"training": {"inject_mode": "add"}},
    {"training": {"inject_mode": "layer1_add"}},
    {"injection": {"mode": "norm_matched_add", "layer": 1}},
    {"extraction": {"injection_mode": "add", "injection_layer": 1}},
    {"injection_mode": "additive", "injection_layer": 1},
    {"steering": {"operation": "Karvonen addition", "after_block": 1, "strength": 1.0}},
    {"injectionMode": "normMatchedAdd", "injectionLayer": "layer_1"},
    {"injection": "norm-matched addition to the output of layer 1"},
    {"injection": {"additive": True, "block": 1}},
    {"vector": {"mode": "added after block 1"}},
  ],
)
def test_addition_after_block_1_is_read_in_any_spelling(keys):
  assert injection_mode(PLAIN | keys, PATH) == "add"


@pytest.mark.parametrize(
  "keys",
  [
    {"training": {"inject_mode": "replace"}},
    {"injection": {"mode": "replacement", "layer": -1}},
    {"injection": {"how": "overwrite", "layer": "embedding", "position": "marker"}},
  ],
)
def test_replacement_of_the_embedding_is_read_too(keys):
  assert injection_mode(PLAIN | keys, PATH) == "replace"


@pytest.mark.parametrize(
  "keys, said",
  [
    ({"injection": {"mode": "add", "layer": 2}}, "injection.layer: 2"),
    ({"injection": {"mode": "replace", "layer": 1}}, "injection.layer: 1"),
    ({"injection": {"layer": 3}}, "injection.layer: 3"),
    ({"injection": {"mode": "residual_add"}}, "does not say after which block"),
    ({"injection": {"mode": "raw_add", "layer": 1}}, "'raw_add'"),
    ({"injection": {"mode": "add", "layer": 1, "strength": 0.5}}, "strength: 0.5"),
    ({"injection": {"mode": "cross_attention"}}, "cross_attention"),
    ({"injection": {"mode": "add", "layer": 1, "norm_matched": False}}, "norm_matched: False"),
    ({"injection_mode": "add", "training": {"inject_mode": "replace"}}, "contradicts itself"),
    ({"vector": {"combine": "sum"}}, "does not say after which block"),
    ({"replace_embedding": False}, "replace_embedding: False"),
    ({"injection": {"layer": 1}, "injection_layer": 2, "inject_mode": "add"}, "contradicts itself"),
  ],
)
def test_what_is_not_done_here_is_refused_by_its_key(keys, said):
  with pytest.raises(NLAError, match=said):
    injection_mode(PLAIN | keys, PATH)
