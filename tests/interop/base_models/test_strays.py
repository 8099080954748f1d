"""What lies beside the tensors of a family's table is named, and refused where it would change a number."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.interop.small_pair import edit

from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.base_models.tokenizers import save_tokenizer
from nla_jax.interop.describe_models import describe_model

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def model(tmp_path, torch_model, tokenizer):
  """A tied llama's directory."""
  folder = shutil.copytree(torch_model("llama"), tmp_path / "model")
  save_tokenizer(tokenizer, folder)
  return folder


def _with(model, **tensors):
  named = {name.replace("__", "."): array for name, array in tensors.items()}
  edit(model / "model.safetensors", lambda arrays: arrays | named)


def _adapter(model):
  save_file({"a": np.ones(2, np.float32)}, model / "adapter_model.safetensors")
  (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))


def _refused(model, said):
  """Loading and `inspect` say the same thing."""
  with pytest.raises(NLAError, match=said):
    load_pretrained(str(model))
  assert any(said in line for line in describe_model(model).missing)


@pytest.mark.parametrize(
  "name",
  [
    "model.layers.1.self_attn.q_proj.bias",
    "model.layers.0.mlp.down_proj.bias",
    "model.layers.2.self_attn.q_norm.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.norm.bias",
    "lm_head.bias",
  ],
)
def test_a_tensor_that_the_decoder_does_not_have_is_refused(model, name):
  edit(model / "model.safetensors", lambda arrays: arrays | {name: np.ones(32, np.float32)})
  _refused(model, f"the first is {name}")


def test_another_unembedding_than_a_tied_one_is_refused_and_an_equal_one_is_read(model):
  embedding = np.asarray(
    huggingface.read_params(model, load_pretrained(str(model)).architecture)["embedding"]
  )
  _with(model, lm_head__weight=embedding)
  assert load_pretrained(str(model)).architecture.tied and not describe_model(model).missing
  other = embedding.copy()
  other[-1, -1] += 1
  _with(model, lm_head__weight=other)
  _refused(model, "tie_word_embeddings")
  # Below the unembedding nothing changes.
  assert load_pretrained(str(model), stop_layer=1).architecture.n_layers == 2


def test_what_belongs_to_other_parts_is_named_and_passed_over(model):
  _with(model, vision_tower__x=np.ones(3, np.float32), score__weight=np.ones((2, 32), np.float32))
  edit(
    model / "model.safetensors",
    lambda arrays: (
      arrays | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    ),
  )
  load_pretrained(str(model))
  found = describe_model(model)
  assert found.facts["not read"].startswith("3 tensor(s)") and not found.missing


def test_an_adapter_beside_whole_weights_or_alone_is_no_whole_model(model):
  _adapter(model)
  _refused(model, "whole weights and a LoRA adapter")
  (model / "adapter_config.json").unlink()
  _refused(model, "whole weights and a LoRA adapter")
  (model / "model.safetensors").unlink()
  _adapter(model)
  with pytest.raises(
    NLAError, match=r"is a LoRA adapter, not a whole model: name its base \(owner/base\)"
  ):
    load_pretrained(str(model))


def test_weights_that_lie_there_twice_are_refused(model):
  save_file({EMBEDDING: np.ones((416, 32), np.float32)}, model / "model.fp16.safetensors")
  _refused(model, "leave the file that is the model's")
  shutil.move(model / "model.fp16.safetensors", model / "model-00001-of-00001.safetensors")
  index = {"weight_map": {EMBEDDING: "model-00001-of-00001.safetensors"}}
  (model / "model.safetensors.index.json").write_text(json.dumps(index))
  _refused(model, "which does not name it")
