"""Directories as another public trainer leaves them: adapters, its own AR file, a copy of the data set's sidecar."""

import json
import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from support.interop.small_pair import edit

import nla_jax
from nla_jax.errors import NLAError
from nla_jax.interop.describe_models import describe_model
from nla_jax.models.lora import split

RANK, ALPHA = 4, 16
PROJECTIONS = {"q_proj": (32, 32), "v_proj": (16, 32)}


def _matrices(blocks, seed):
  """{(block, projection): (A, B)}."""
  draw = np.random.default_rng(seed).standard_normal
  return {
    (block, name): (draw((RANK, inputs), np.float32), draw((outputs, RANK), np.float32) / 8)
    for block in range(blocks)
    for name, (outputs, inputs) in PROJECTIONS.items()
  }


def _named(matrices, form):
  """Tensors under the names that `form` makes of a module's path and a half."""
  return {
    form.format(path=f"model.layers.{block}.self_attn.{name}", half=half): array
    for (block, name), both in matrices.items()
    for half, array in zip("AB", both)
  }


def _data_sidecar(folders):
  side = yaml.safe_load((folders.av / "nla_meta.yaml").read_text(encoding="utf-8"))
  return {
    "kind": "nla_dataset",
    "stage": "av_sft",
    "dataset_id": "warm start",
    "extraction": {
      "base_model": str(folders.base),
      "d_model": 32,
      "layer_index": 1,
      "norm": "none",
    },
    "tokens": side["tokens"],
    "prompt_templates": side["prompt_templates"],
  }


@pytest.fixture
def left(folders, tmp_path):
  """(av, ar, matrices of the AR) as the trainer leaves them, beside the base in `folders`."""
  av, ar = tmp_path / "run" / "iter_av", tmp_path / "run" / "iter_ar"
  for folder in (av, ar):
    folder.mkdir(parents=True)
    (folder / "nla_meta.yaml").write_text(yaml.safe_dump(_data_sidecar(folders)), encoding="utf-8")
  config = {
    "peft_type": "LORA",
    "base_model_name_or_path": str(folders.base),
    "r": RANK,
    "lora_alpha": ALPHA,
    "use_rslora": True,
    "target_modules": list(PROJECTIONS),
  }
  (av / "adapter_config.json").write_text(json.dumps(config))
  names = "base_model.model.{path}.lora_{half}.weight"
  save_file(_named(_matrices(3, 0), names), av / "adapter_model.safetensors")

  matrices = _matrices(2, 1)
  arrays = _named(matrices, "backbone.{path}.lora_{half}.default.weight")
  arrays["value_head.weight"] = load_file(folders.ar / "value_head.safetensors")["weight"]
  save_file(arrays, ar / "ar_lora_value_head.safetensors")
  _meta(ar, final_norm_stripped=True)
  return av, ar, matrices


def _meta(ar, **more):
  meta = {"ar_num_layers": 2, "lora_r": RANK, "lora_alpha": ALPHA, "quant": "none"} | more
  (ar / "ar_meta.json").write_text(json.dumps(meta))


def test_its_pair_is_read_as_it_computes(left, folders, tmp_path):
  """The AR equals whole weights W + alpha / √rank · B A, and the AV's vector is added."""
  av, ar, matrices = left
  nla = nla_jax.load(av, ar=ar)
  assert nla.pair.verbalizer.inject_mode == "add" and nla.pair.layer == 1
  assert nla.pair.verbalizer.lora.rank == RANK and split(nla.av_params)[1] is not None

  def merged(arrays):
    for (block, name), (a, b) in matrices.items():
      arrays[f"model.layers.{block}.self_attn.{name}.weight"] += ALPHA / RANK**0.5 * b @ a

  whole = shutil.copytree(folders.ar, tmp_path / "whole")
  edit(whole / "model.safetensors", merged)
  texts = ["a cat sat on the mat", "the snow"]
  expected = nla_jax.load(folders.av, ar=whole).reconstruct(texts)
  # The base of adapters is kept in bfloat16.
  np.testing.assert_allclose(nla.reconstruct(texts), expected, atol=0.03 * np.abs(expected).max())
  plain = nla_jax.load(folders.av, ar=folders.ar).reconstruct(texts)
  assert np.abs(plain - expected).max() > 0.3 * np.abs(expected).max()


def test_inspect_says_what_they_are(left):
  av, ar, _ = left
  found = describe_model(av)
  assert found.facts["training.inject_mode"] == "add" and found.missing == []
  found = describe_model(ar)
  assert "reconstructor" in found.kind and "row norms" in found.facts["value head"]
  assert found.missing == []


def test_whole_weights_with_a_data_sets_sidecar_are_an_av_whose_vector_is_added(folders):
  (folders.av / "nla_meta.yaml").write_text(
    yaml.safe_dump(_data_sidecar(folders)), encoding="utf-8"
  )
  assert nla_jax.load(folders.av, ar=folders.ar).pair.verbalizer.inject_mode == "add"


@pytest.mark.parametrize(
  "damage, said",
  [
    (lambda av, ar: _meta(ar), "final_norm_stripped: None"),
    (lambda av, ar: _meta(ar, final_norm_stripped=False), "final_norm_stripped: False"),
    (lambda av, ar: _meta(ar, final_norm_stripped=True, ar_num_layers=3), "says 3 blocks"),
    (lambda av, ar: _meta(ar, final_norm_stripped=True, lora_r=0), "r is 0"),
    (lambda av, ar: (ar / "ar_meta.json").unlink(), "no ar_meta.json"),
    (lambda av, ar: (ar / "nla_meta.yaml").unlink(), "copy the sidecar of the data"),
    (lambda av, ar: edit(ar / "ar_lora_value_head.safetensors", _without_head), "holds 0 of"),
    (lambda av, ar: edit(ar / "ar_lora_value_head.safetensors", _without_half), "without"),
    (lambda av, ar: _scaled(av), "does not say how its AV's vector goes in"),
  ],
)
def test_what_is_missing_is_said(left, damage, said):
  av, ar, _ = left
  damage(av, ar)
  with pytest.raises(NLAError, match=said):
    nla_jax.load(av, ar=ar)


def _without_head(arrays):
  del arrays["value_head.weight"]


def _without_half(arrays):
  del arrays["backbone.model.layers.0.self_attn.q_proj.lora_B.default.weight"]


def _scaled(av):
  side = yaml.safe_load((av / "nla_meta.yaml").read_text(encoding="utf-8"))
  side["extraction"]["injection_scale"] = 150.0
  (av / "nla_meta.yaml").write_text(yaml.safe_dump(side), encoding="utf-8")


@pytest.mark.parametrize(
  "name, said",
  [
    ("model.norm.weight", "holds the final norm"),
    ("model.layers.0.self_attn.q_proj.bias", "the first is"),
    ("lm_head.weight", "two heads"),
  ],
)
def test_an_ar_with_more_than_its_blocks_is_refused(folders, name, said):
  array = np.eye(32, dtype=np.float32)[::-1] if "head" in name else np.full(32, 2, np.float32)
  edit(folders.ar / "model.safetensors", lambda arrays: arrays | {name: array})
  with pytest.raises(NLAError, match=said):
    nla_jax.load(folders.av, ar=folders.ar)
  assert any(said in line for line in describe_model(folders.ar).missing)


def test_a_head_in_the_model_file_alone_is_told_how_to_move(folders):
  (folders.ar / "value_head.safetensors").unlink()
  edit(
    folders.ar / "model.safetensors",
    lambda arrays: arrays | {"lm_head.weight": np.eye(32, dtype=np.float32)},
  )
  with pytest.raises(NLAError, match="save it alone, under the name weight, as value_head"):
    nla_jax.load(folders.av, ar=folders.ar)
