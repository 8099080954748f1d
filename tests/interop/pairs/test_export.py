"""AV and AR directories: what other tools load from them, and what is refused on the way back."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from nla_jax.autoencoder import prompts
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.pairs import sidecar as s
from nla_jax.interop.pairs.directories import read_checkpoint
from nla_jax.interop.pairs.write import write_ar, write_av

LAYER = 1


@pytest.fixture(params=["llama", "llama_untied", "qwen2", "gemma3_text", "gemma3_wrapped"])
def base(request, torch_model):
  """(architecture, params, config.json) of a base model."""
  directory = torch_model(request.param)
  config = huggingface.read_config(directory)
  architecture = huggingface.architecture_from_config(config)
  return architecture, huggingface.read_params(directory, architecture), config


@pytest.fixture
def llama(torch_model):
  directory = torch_model("llama")
  architecture = huggingface.architecture_from_config(huggingface.read_config(directory))
  return architecture, huggingface.read_params(directory, architecture)


def _sidecar(tokenizer, role):
  live = prompts.make_prompts(tokenizer)
  return s.ModelSidecar(
    role=role,
    stage="rl",
    base_checkpoint="somebody/model",
    d_model=32,
    injection_scale=12.5,
    mse_scale=math.sqrt(32),
    tokens=s.tokens_of(live),
    av_template=live.av_template,
    ar_template=live.ar_template,
    layer_index=LAYER,
  )


def _cut(params):
  return {
    "embedding": params["embedding"],
    "layers": {name: array[: LAYER + 1] for name, array in params["layers"].items()},
  }


def _head():
  return np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)


def _keys(path):
  with safe_open(path, "np") as file:
    return set(file.keys()), file.metadata()


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected["layers"].items():
    np.testing.assert_array_equal(found["layers"][name], array)
  for name in set(expected) - {"layers"}:
    np.testing.assert_array_equal(found[name], expected[name])


def test_an_av_is_read_back_as_it_was_written(base, tokenizer, tmp_path):
  architecture, params, config = base
  sidecar = _sidecar(tokenizer, "av")
  write_av(tmp_path / "av", architecture, params, tokenizer, sidecar, config)
  found = read_checkpoint(tmp_path / "av", "av")
  assert found.architecture == architecture and found.sidecar == sidecar
  assert found.head is None and found.injection is None
  _assert_same(found.params, params)
  keys, metadata = _keys(tmp_path / "av" / "model.safetensors")
  assert metadata == {"format": "pt"}
  assert [key for key in keys if key.endswith("embed_tokens.weight")] == [
    "model.embed_tokens.weight"
  ]
  written = huggingface.read_config(tmp_path / "av")
  assert written["rope_theta"] == architecture.rope_theta and "rope_parameters" in written
  assert written["architectures"] == [
    config["architectures"][0].replace("ConditionalGeneration", "CausalLM")
  ]


def test_an_ar_is_read_back_as_it_was_written(base, tokenizer, tmp_path):
  architecture, params, config = base
  sidecar, head = _sidecar(tokenizer, "ar"), _head()
  write_ar(
    tmp_path / "ar", architecture.lower(LAYER + 1), _cut(params), head, tokenizer, sidecar, config
  )
  found = read_checkpoint(tmp_path / "ar", "ar")
  assert found.architecture == architecture.lower(LAYER + 1) and found.sidecar == sidecar
  _assert_same(found.params, _cut(params))
  np.testing.assert_array_equal(found.head, head)
  assert (
    found.tokenizer.padding_side == "right"
    and tokenizer.padding_side == found.tokenizer.padding_side
  )


def test_the_ars_files_hold_what_is_documented_and_no_more(base, tokenizer, tmp_path):
  architecture, params, config = base
  head = _head()
  write_ar(
    tmp_path / "ar",
    architecture.lower(LAYER + 1),
    _cut(params),
    head,
    tokenizer,
    _sidecar(tokenizer, "ar"),
    config,
  )
  keys, metadata = _keys(tmp_path / "ar" / "model.safetensors")
  assert metadata == {"format": "pt"}
  assert {key.split(".")[2] for key in keys if key.startswith("model.layers.")} == {"0", "1"}
  assert {key for key in keys if not key.startswith("model.layers.")} == {
    "model.embed_tokens.weight"
  }
  assert _keys(tmp_path / "ar" / "value_head.safetensors") == ({"weight"}, {"format": "pt"})
  weight = tensor_files.read_file(tmp_path / "ar" / "value_head.safetensors", {"weight": (32, 32)})[
    "weight"
  ]
  np.testing.assert_array_equal(weight, head.T)
  written = huggingface.read_config(tmp_path / "ar")
  assert written["num_hidden_layers"] == LAYER + 1
  assert len(written.get("layer_types", [0] * (LAYER + 1))) == LAYER + 1


def test_torch_computes_the_same_prediction_from_the_ars_files(base, tokenizer, tmp_path):
  import torch
  from transformers import AutoModelForCausalLM, AutoTokenizer

  architecture, params, config = base
  head = _head()
  directory = write_ar(
    tmp_path / "ar",
    architecture.lower(LAYER + 1),
    _cut(params),
    head,
    tokenizer,
    _sidecar(tokenizer, "ar"),
    config,
  )
  av = write_av(tmp_path / "av", architecture, params, tokenizer, _sidecar(tokenizer, "av"), config)
  ids = torch.arange(3, 23)[None]
  with torch.no_grad():
    whole = AutoModelForCausalLM.from_pretrained(av).eval()
    residual = whole(ids, output_hidden_states=True).hidden_states[LAYER + 1][0, -1]
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    model.model.norm = torch.nn.Identity()
    value_head = torch.nn.Linear(32, 32, bias=False)
    weight = tensor_files.read_file(directory / "value_head.safetensors", {"weight": (32, 32)})[
      "weight"
    ]
    value_head.load_state_dict({"weight": torch.tensor(weight)})
    prediction = value_head(model.model(ids).last_hidden_state[0, -1])
  np.testing.assert_allclose(prediction.numpy(), residual.numpy() @ head, rtol=1e-4, atol=1e-4)
  live = AutoTokenizer.from_pretrained(directory)
  first = live("x", add_special_tokens=True)["input_ids"][0]
  assert live.bos_token_id is None or live.bos_token_id == first


def test_the_written_tokenizer_gives_the_same_ids(llama, tokenizer, tmp_path):
  write_av(tmp_path / "av", *llama, tokenizer, _sidecar(tokenizer, "av"))
  live = read_checkpoint(tmp_path / "av", "av").tokenizer
  for text in ("a cat 12 ㈎ of 世界", "<|im_start|>user\nthe text<|im_end|>", "  two  spaces\n"):
    assert live(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert live.decode(live(text)["input_ids"]) == text
  assert live.chat_template == tokenizer.chat_template
  assert (live.eos_token, live.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
  assert tokenizer.bos_token == "<|im_start|>" and live.bos_token is None
  assert "<|im_start|>" not in live.decode(
    live("<|im_start|>the")["input_ids"], skip_special_tokens=True
  )
  written = json.loads((tmp_path / "av" / "tokenizer_config.json").read_text())
  assert written["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_sampling_defaults_are_the_models_own_distribution(llama, tokenizer, tmp_path):
  write_av(tmp_path / "av", *llama, tokenizer, _sidecar(tokenizer, "av"))
  written = json.loads((tmp_path / "av" / "generation_config.json").read_text())
  assert (written["temperature"], written["top_p"], written["repetition_penalty"]) == (
    1.0,
    1.0,
    1.0,
  )
  assert (
    written["top_k"] >= llama[0].vocab_size and written["eos_token_id"] == tokenizer.eos_token_id
  )


def test_a_learned_injection_travels_in_a_file_of_its_own(llama, tokenizer, tmp_path):
  injection = {"matrix": _head(), "bias": _head()[0]}
  write_av(
    tmp_path / "av",
    *llama,
    tokenizer,
    _sidecar(tokenizer, "av"),
    injection=injection,
    dtype="bfloat16",
  )
  found = read_checkpoint(tmp_path / "av", "av")
  for key, array in injection.items():
    np.testing.assert_array_equal(found.injection[key], array)
  assert (
    "injection.safetensors"
    in yaml.safe_load((tmp_path / "av" / "nla_meta.yaml").read_text(encoding="utf-8"))["training"][
      "injection"
    ]
  )
  (tmp_path / "av" / "injection.safetensors").unlink()
  with pytest.raises(NLAError, match=re.escape("lacks injection.safetensors")):
    read_checkpoint(tmp_path / "av", "av")


def test_an_ar_with_one_block_too_few_or_too_many_is_refused_both_ways(
  llama, tokenizer, tmp_path, edit_config
):
  architecture, params = llama
  sidecar = _sidecar(tokenizer, "ar")
  with pytest.raises(NLAError, match="has 2 blocks, this one has 3"):
    write_ar(tmp_path / "ar", architecture, params, _head(), tokenizer, sidecar)
  assert not (tmp_path / "ar").exists()
  write_ar(tmp_path / "ar", architecture.lower(2), _cut(params), _head(), tokenizer, sidecar)
  s.write_model_sidecar(tmp_path / "ar", dataclasses.replace(sidecar, layer_index=2))
  with pytest.raises(NLAError, match="has 3 blocks, this one has 2"):
    read_checkpoint(tmp_path / "ar", "ar")
  edit_config(tmp_path / "ar", num_hidden_layers=3)
  with pytest.raises(NLAError, match="says 3 layers, the safetensors hold 2"):
    read_checkpoint(tmp_path / "ar", "ar")


def test_damaged_or_mixed_up_checkpoints_are_refused(llama, tokenizer, tmp_path):
  architecture, params = llama
  write_ar(
    tmp_path / "ar",
    architecture.lower(2),
    _cut(params),
    _head(),
    tokenizer,
    _sidecar(tokenizer, "ar"),
  )
  with pytest.raises(NLAError, match="is an AR's, an AV's is needed"):
    read_checkpoint(tmp_path / "ar", "av")
  tensor_files.write_file(
    tmp_path / "ar" / "value_head.safetensors", {"weight": np.zeros((32, 16))}
  )
  with pytest.raises(NLAError, match=re.escape("shape [32, 16], expected [32, 32]")):
    read_checkpoint(tmp_path / "ar", "ar")
  (tmp_path / "ar" / "value_head.safetensors").unlink()
  with pytest.raises(NLAError, match=r"value_head\.safetensors is missing"):
    read_checkpoint(tmp_path / "ar", "ar")
  for name in ("tokenizer.json", "tokenizer_config.json"):
    (tmp_path / "ar" / name).unlink()
  with pytest.raises(NLAError, match="no tokenizer could be read"):
    read_checkpoint(tmp_path / "ar", "ar")


def test_an_export_replaces_only_an_earlier_export_and_a_failed_one_leaves_it_alone(
  llama, tokenizer, tmp_path
):
  architecture, params = llama
  directory = tmp_path / "av"
  directory.mkdir()
  (directory / "thesis.txt").write_text("precious")
  with pytest.raises(NLAError, match="holds files that are no earlier export"):
    write_av(directory, architecture, params, tokenizer, _sidecar(tokenizer, "av"))
  (directory / "thesis.txt").unlink()
  write_av(directory, architecture, params, tokenizer, _sidecar(tokenizer, "av"))
  before = (directory / "model.safetensors").read_bytes()
  broken = params | {"final_norm": params["final_norm"][:5]}
  with pytest.raises(NLAError, match="'final_norm' to be written has shape"):
    write_av(directory, architecture, broken, tokenizer, _sidecar(tokenizer, "av"))
  assert (directory / "model.safetensors").read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ["av"]
  write_av(
    directory,
    architecture,
    params | {"final_norm": params["final_norm"] + 1},
    tokenizer,
    _sidecar(tokenizer, "av"),
  )
  assert (directory / "model.safetensors").read_bytes() != before
