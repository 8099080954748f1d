"""Finite but absurd weights, empty heads and reconstructions without a direction are refused or noted by name."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from support.interop.small_pair import edit

import nla_jax
from nla_jax.errors import NLAError
from nla_jax.interop.describe_models import describe_model
from nla_jax.interop.pairs import head

DOWN = "model.layers.0.mlp.down_proj.weight"


def _rows(name, value, share=0.5):
  def change(arrays):
    array = arrays[name].copy()
    array[: int(len(array) * share)] = value
    return arrays | {name: array}

  return change


@pytest.mark.parametrize(
  "file, name, value, share, said",
  [
    ("value_head.safetensors", "weight", 3e38, 0.5, "up to 3.0e+38"),
    ("value_head.safetensors", "weight", -7e9, 0.1, "up to 7.0e+09"),
    ("value_head.safetensors", "weight", 0, 1, "zero throughout"),
    ("model.safetensors", DOWN, 1e20, 0.5, "up to 1.0e+20"),
    ("model.safetensors", DOWN, np.nan, 0.1, "NaN or infinity"),
    ("model.safetensors", "model.embed_tokens.weight", 0, 1, "zero throughout"),
  ],
)
def test_weights_that_no_trained_model_has_are_refused_by_name(
  folders, file, name, value, share, said
):
  edit(folders.ar / file, _rows(name, value, share))
  with pytest.raises(NLAError, match=re.escape(name) + ".*" + re.escape(said)):
    nla_jax.load(folders.av, ar=folders.ar)


def test_a_head_with_empty_rows_is_said_at_loading_and_in_inspect(folders, capsys):
  sound = describe_model(folders.ar)
  assert "row norms" in sound.facts["value head"] and not sound.missing
  edit(folders.ar / "value_head.safetensors", _rows("weight", 0))
  found = describe_model(folders.ar)
  assert "16 of the value head's 32 rows are zero" in found.missing[0]
  nla_jax.load(folders.av, ar=folders.ar)
  assert "16 of the value head's 32 rows are zero" in capsys.readouterr().err


def test_rows_that_are_nearly_zero_count_as_empty():
  weight = np.eye(8, dtype=np.float32)
  weight[3] *= 1e-9
  assert head.row_norms(weight).empty == 1
  assert head.row_norms(np.eye(8, dtype=np.float32) * 1e-9).empty == 0


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 16)])
def test_rows_that_outweigh_the_others_are_said(rows):
  weight = np.eye(32, dtype=np.float32)
  assert head.row_norms(weight).complaint is None
  weight[rows] *= 1e5
  assert "outweigh the others" in head.row_norms(weight).complaint


@pytest.mark.parametrize(
  "value, kind", [(0.0, "zero"), (np.nan, "not finite"), (np.inf, "not finite")]
)
def test_a_reconstruction_without_a_direction_is_no_result(folders, value, kind):
  nla = nla_jax.load(folders.av, ar=folders.ar)
  nla.ar_params["head"]["weight"] = jnp.full((32, 32), value, jnp.float32)
  with pytest.raises(
    NLAError, match=f"rebuilds is {kind} for 2 of 2 texts, the first is number 0, 'a cat'"
  ):
    nla.reconstruct(["a cat", "a mat"])
  with pytest.raises(NLAError, match=kind):
    nla.explain(np.ones((1, 32)), best_of=2)
