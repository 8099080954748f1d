"""Directories that transformers wrote: read, written again, and refused with a reason where they are wrong."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from safetensors import safe_open

from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.config_json import (
  architecture_from_config,
  config_from_architecture,
)
from nla_jax.interop.base_models.tokenizers import save_tokenizer

KINDS = ("llama", "llama_untied", "qwen2", "qwen3", "gemma3_text", "gemma3_wrapped")


def _tensors(directory):
  out = {}
  for path in tensor_files.weight_files(directory):
    with safe_open(path, "np") as file:
      out |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
  return out


def _architecture(directory):
  return architecture_from_config(huggingface.read_config(directory))


@pytest.mark.parametrize("kind", KINDS)
def test_read_and_written_tensors_are_byte_identical(torch_model, kind, tmp_path):
  directory = torch_model(kind)
  architecture = _architecture(directory)
  params = huggingface.read_params(directory, architecture)
  tensor_files.write_tensors(tmp_path, huggingface.tensors_of(params, architecture))
  original = {
    name.removeprefix("language_model."): array
    for name, array in _tensors(directory).items()
    if not name.startswith(("vision_tower", "multi_modal"))
  }
  written = _tensors(tmp_path)
  assert written.keys() == original.keys()
  for name, array in original.items():
    assert array.dtype == written[name].dtype and array.tobytes() == written[name].tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_same_logits_from_what_was_written(torch_model, kind, tmp_path):
  import torch
  from transformers import AutoModelForCausalLM

  directory = torch_model(kind)
  base = huggingface.read_config(directory)
  architecture = architecture_from_config(base)
  params = huggingface.read_params(directory, architecture)
  ids = torch.arange(3, 33)[None] * 7 % 400
  if kind == "gemma3_wrapped":
    from transformers import Gemma3ForConditionalGeneration

    expected = Gemma3ForConditionalGeneration.from_pretrained(directory).eval()(ids).logits
  else:
    expected = AutoModelForCausalLM.from_pretrained(directory).eval()(ids).logits
  for name, base_config in (("with_base", base), ("without_base", None)):
    out = tmp_path / name
    out.mkdir()
    tensor_files.write_tensors(out, huggingface.tensors_of(params, architecture))
    config = config_from_architecture(architecture, base_config)
    (out / "config.json").write_text(json.dumps(config))
    assert _architecture(out) == architecture
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(model.eval()(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_files_are_read_exactly_and_written_back_identically(torch_model, tmp_path):
  architecture = _architecture(torch_model("llama"))
  params = huggingface.read_params(torch_model("llama"), architecture)
  first, second = tmp_path / "first", tmp_path / "second"
  for folder in (first, second):
    folder.mkdir()
  tensor_files.write_tensors(first, huggingface.tensors_of(params, architecture), dtype="bfloat16")
  rounded = huggingface.read_params(first, architecture)
  assert rounded["embedding"].dtype == np.float32
  assert not np.array_equal(rounded["embedding"], params["embedding"])
  np.testing.assert_allclose(rounded["embedding"], params["embedding"], rtol=2**-8)
  tensor_files.write_tensors(
    second, huggingface.tensors_of(rounded, architecture), dtype="bfloat16"
  )
  assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_many_shards_with_an_index_hold_the_same_model(torch_model, tmp_path):
  architecture = _architecture(torch_model("qwen2"))
  params = huggingface.read_params(torch_model("qwen2"), architecture)
  paths = tensor_files.write_tensors(
    tmp_path, huggingface.tensors_of(params, architecture), shard_bytes=20_000
  )
  index = json.loads((tmp_path / tensor_files.INDEX).read_text())
  assert len(paths) > 3 and set(index["weight_map"].values()) == {path.name for path in paths}
  assert index["metadata"]["total_size"] == sum(
    array.nbytes for array in _tensors(tmp_path).values()
  )
  again = huggingface.read_params(tmp_path, architecture)
  assert again["layers"].keys() == params["layers"].keys()
  for name, array in params["layers"].items():
    np.testing.assert_array_equal(again["layers"][name], array)
  paths[1].unlink()
  with pytest.raises(NLAError, match=f"lacks the shard {paths[1].name}"):
    huggingface.read_params(tmp_path, architecture)


def test_a_target_is_read_only_up_to_its_layer(torch_model):
  directory = torch_model("gemma3_text")
  architecture = _architecture(directory)
  whole = huggingface.read_params(directory, architecture)
  cut = huggingface.read_params(directory, architecture, stop_layer=1)
  assert set(cut) == {"embedding", "layers"}
  for name, array in whole["layers"].items():
    np.testing.assert_array_equal(cut["layers"][name], array[:2])
  with pytest.raises(NLAError, match=re.escape("blocks 0..2")):
    huggingface.read_params(directory, architecture, stop_layer=3)


def test_a_wrong_layer_count_is_an_error_in_both_directions(torch_model):
  directory = torch_model("llama")
  architecture = _architecture(directory)
  for n_layers in (2, 4):
    with pytest.raises(NLAError, match=f"says {n_layers} layers, the safetensors hold 3"):
      huggingface.read_params(directory, dataclasses.replace(architecture, n_layers=n_layers))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_a_tokenizer_is_what_its_file_says_in_every_family(torch_model, tokenizer, tmp_path, kind):
  shutil.copy(torch_model(kind) / "config.json", tmp_path)
  save_tokenizer(tokenizer, tmp_path)
  found = huggingface.read_tokenizer(tmp_path)
  for text in ("Über 123 cats' e\u0301", "<concept>㈎</concept>\n\n12"):
    assert found(text)["input_ids"] == tokenizer.backend_tokenizer.encode(text).ids
  assert (found.eos_token, found.pad_token, found.chat_template) == (
    tokenizer.eos_token,
    tokenizer.pad_token,
    tokenizer.chat_template,
  )


def test_torch_pickles_are_refused_with_the_reason(torch_model, tmp_path):
  architecture = _architecture(torch_model("llama"))
  with pytest.raises(NLAError, match=r"no model\*\.safetensors"):
    huggingface.read_params(tmp_path, architecture)
  (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
  with pytest.raises(NLAError, match="can run code when loaded"):
    huggingface.read_params(tmp_path, architecture)


def test_a_truncated_file_and_a_missing_tensor_are_named(torch_model, tmp_path):
  directory = torch_model("llama")
  architecture = _architecture(directory)
  data = (directory / "model.safetensors").read_bytes()
  (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
  with pytest.raises(NLAError, match="not a whole safetensors file"):
    huggingface.read_params(tmp_path, architecture)
  tensors = _tensors(directory)
  del tensors["model.layers.1.mlp.up_proj.weight"]
  tensor_files.write_file(tmp_path / "model.safetensors", tensors)
  with pytest.raises(
    NLAError, match=re.escape("lacks the tensor model.layers.1.mlp.up_proj.weight")
  ):
    huggingface.read_params(tmp_path, architecture)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model_type": "mamba"}, "model_type 'mamba'"),
    (
      {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}},
      "rope scaling 'yarn'",
    ),
    ({"attention_bias": True}, "attention_bias=True"),
    ({"hidden_act": "relu"}, "activation 'relu'"),
    ({"hidden_size": None}, "lacks hidden_size"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
  ],
)
def test_a_config_that_is_not_supported_is_one_clear_line(
  torch_model, tmp_path, edit_config, changes, message
):
  shutil.copy(torch_model("llama") / "config.json", tmp_path)
  edit_config(tmp_path, **changes)
  with pytest.raises(NLAError, match=re.escape(message)) as error:
    _architecture(tmp_path)
  assert "\n" not in str(error.value)


def test_files_of_transformers_4_give_the_same_architecture(torch_model):
  for kind in ("llama_untied", "gemma3_text", "qwen3"):
    new = huggingface.read_config(torch_model(kind))
    architecture = architecture_from_config(new)
    old = {
      key: value for key, value in new.items() if key not in ("rope_parameters", "layer_types")
    }
    old["rope_theta"] = architecture.rope_theta
    if kind == "llama_untied":
      old["rope_scaling"] = {
        key: value for key, value in new["rope_parameters"].items() if key != "rope_theta"
      }
    if kind == "gemma3_text":
      old |= {"rope_local_base_freq": architecture.rope_theta_local, "sliding_window_pattern": 3}
    assert architecture_from_config(old) == architecture
    written = config_from_architecture(architecture, new)
    legacy = {
      key: value for key, value in written.items() if key not in ("rope_parameters", "dtype")
    }
    assert architecture_from_config(legacy) == architecture


def test_gemma_files_say_only_what_differs_from_the_defaults():
  config = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {
      "hidden_size": 2560,
      "intermediate_size": 10240,
      "model_type": "gemma3_text",
      "num_hidden_layers": 34,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
      "sliding_window": 1024,
    },
  }
  architecture = architecture_from_config(config)
  assert (architecture.n_heads, architecture.n_kv_heads, architecture.head_dim) == (8, 4, 256)
  assert architecture.windows[:6] == (1024,) * 5 + (0,) and len(architecture.windows) == 34
  assert (architecture.rope_theta, architecture.rope_theta_local) == (1e6, 1e4)
  assert architecture.rope_scaling.kind == "linear" and architecture.rope_scaling.factor == 8.0
  assert architecture.tied and architecture.embedding_scale == 2560**0.5
  written = config_from_architecture(architecture, config)
  assert written["architectures"] == ["Gemma3ForCausalLM"] and "text_config" not in written
  assert architecture_from_config(written) == architecture
