"""Files of others, made after their published layout, compute what their code does; what is not known is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nla_jax.errors import NLAError
from nla_jax.evaluation.sae import files
from nla_jax.evaluation.sae.autoencoder import Kind

D, M = 6, 10
GEMMA = {
  "architecture": "jump_relu",
  "hf_hook_point_in": "model.layers.3.output",
  "hf_hook_point_out": "model.layers.3.output",
  "model_name": "google/gemma-3-270m-pt",
  "type": "sae",
  "width": M,
  "l0": 20,
}
SAELENS = {
  "architecture": "topk",
  "k": 3,
  "d_in": D,
  "d_sae": M,
  "dtype": "float32",
  "apply_b_dec_to_input": True,
  "normalize_activations": "none",
  "reshape_activations": "none",
  "metadata": {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_post"},
}


def tensors(**more):
  random = np.random.default_rng(0)
  shapes = {"W_enc": (D, M), "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,)}
  found = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  return found | more


def gemma(folder, config=None, **more):
  given = {name.lower(): one for name, one in tensors().items()}
  given["threshold"] = np.full(M, 0.5, np.float32)
  save_file({**given, **more}, folder / "params.safetensors")
  (folder / "config.json").write_text(json.dumps({**GEMMA, **(config or {})}))
  return given


def saelens(folder, config=None, **more):
  given = tensors(**more)
  save_file(given, folder / "sae_weights.safetensors")
  (folder / "cfg.json").write_text(json.dumps({**SAELENS, **(config or {})}))
  return given


def load(folder):
  return files.load(folder, width=D, layer=3)


X = np.random.default_rng(1).normal(size=(5, D)).astype(np.float32)


def test_gemma_scope_encodes_without_the_decoders_bias(tmp_path):
  given = gemma(tmp_path)
  before = X @ given["w_enc"] + given["b_enc"]
  expected = before * (before > given["threshold"])
  found = load(tmp_path)
  np.testing.assert_allclose(found.encode(X), expected, rtol=1e-4, atol=1e-5)
  rebuilt = expected @ given["w_dec"] + given["b_dec"]
  np.testing.assert_allclose(found.reconstruct(X), rebuilt, rtol=1e-4, atol=1e-5)


def test_saelens_takes_the_decoders_bias_out_where_its_config_says_so(tmp_path):
  given = saelens(tmp_path)
  before = (X - given["b_dec"]) @ given["W_enc"] + given["b_enc"]
  least = np.sort(before, axis=1)[:, -3, None]
  expected = np.where(before >= least, np.maximum(before, 0), 0)
  np.testing.assert_allclose(load(tmp_path).encode(X), expected, rtol=1e-4, atol=1e-5)

  saelens(tmp_path, {"apply_b_dec_to_input": False, "architecture": "standard"})
  expected = np.maximum(X @ given["W_enc"] + given["b_enc"], 0)
  np.testing.assert_allclose(load(tmp_path).encode(X), expected, rtol=1e-4, atol=1e-5)


def test_every_architecture_of_saelens_is_of_its_kind(tmp_path):
  threshold = np.full(M, 0.2, np.float32)
  saelens(
    tmp_path,
    {"architecture": "jumprelu", "normalize_activations": "layer_norm"},
    threshold=threshold,
  )
  found = load(tmp_path)
  assert found.kind == Kind("jump_relu", minus_bias=True, scaling="layer_norm")
  np.testing.assert_array_equal(found.threshold, threshold)

  # A checkpoint of batchtopk holds the one threshold that its inference has.
  saelens(tmp_path, {"architecture": "batchtopk"}, topk_threshold=np.array(0.3))
  assert load(tmp_path).kind.activation == "jump_relu"
  np.testing.assert_allclose(load(tmp_path).threshold, 0.3)

  saelens(tmp_path, {"rescale_acts_by_decoder_norm": True})
  assert load(tmp_path).kind == Kind("top_k", 3, minus_bias=True, by_decoder=True)


def test_older_files_of_saelens(tmp_path):
  older = {
    "architecture": "standard",
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 4},
    "k": None,
    "metadata": None,
    "hook_name": "blocks.4.hook_resid_pre",  # what enters block 4 is what block 3 gives
    "normalize_activations": "constant_norm_rescale",
  }
  config = {name: one for name, one in older.items() if one is not None}
  saelens(tmp_path, config)
  plain = json.loads((tmp_path / "cfg.json").read_text())
  del plain["k"], plain["metadata"]
  (tmp_path / "cfg.json").write_text(json.dumps(plain))
  assert load(tmp_path).kind == Kind("top_k", 4, minus_bias=True, scaling="constant_norm_rescale")


@pytest.mark.parametrize(
  ("make", "config", "says"),
  [
    (gemma, {"architecture": "topk"}, 'architecture "topk", which is not read here'),
    (gemma, {"affine_skip_connection": True}, "affine_skip_connection true"),
    (gemma, {"hf_hook_point_out": "model.layers.3.mlp.output"}, "a transcoder"),
    (gemma, {"type": "crosscoder"}, 'type "crosscoder"'),
    (
      gemma,
      {"hf_hook_point_in": "model.layers.4.output", "hf_hook_point_out": None},
      "of block 4's",
    ),
    (saelens, {"architecture": "gated"}, 'architecture "gated"'),
    (saelens, {"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
    (saelens, {"metadata": {"hook_name": "blocks.3.hook_mlp_out"}}, "of blocks.3.hook_mlp_out"),
    (saelens, {"finetuning_scaling_factor": True}, "finetuning_scaling_factor true"),
    (saelens, {"k": 0}, "names 0 latents"),
    (saelens, {"k": 11}, "keeps 11 of 10 latents"),
    (saelens, {"activation_fn_str": "tanh-relu"}, "tanh-relu"),
    (saelens, {"architecture": "jumprelu"}, "lacks threshold"),
  ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, make, config, says):
  make(tmp_path, config)
  with pytest.raises(NLAError, match=says):
    load(tmp_path)


def test_tensors_and_shapes_that_do_not_belong_are_refused(tmp_path):
  saelens(tmp_path, b_gate=np.zeros(M, np.float32))
  with pytest.raises(NLAError, match="has b_gate besides"):
    load(tmp_path)
  saelens(tmp_path, b_enc=np.zeros(M + 1, np.float32))
  with pytest.raises(NLAError, match="do not belong together"):
    load(tmp_path)
  saelens(tmp_path)
  with pytest.raises(NLAError, match="the activations are 7 wide"):
    files.load(tmp_path, width=7, layer=3)
  (tmp_path / "sae_weights.safetensors").write_bytes(b"short")
  with pytest.raises(NLAError, match="not a whole safetensors file"):
    load(tmp_path)


def test_a_folder_with_neither_is_refused(tmp_path):
  with pytest.raises(NLAError, match="holds no such files: expected"):
    load(tmp_path)
  (tmp_path / "ae.pt").write_bytes(b"")
  with pytest.raises(NLAError, match=r"a torch pickle \(ae.pt\)"):
    load(tmp_path)
