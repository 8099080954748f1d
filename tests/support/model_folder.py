"""A tiny random llama as a Hugging Face directory with a tokenizer of one's own."""

import dataclasses
import json

import jax
import numpy as np

from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.models.parameters import init_params


def write_model(folder, tokenizer, rows=None, **generation):
  """Writes it; `rows` of embedding where not as many as the tokenizer has, `generation` into generation_config.json."""
  folder.mkdir(parents=True, exist_ok=True)
  small = random_model("random:tiny").architecture
  architecture = dataclasses.replace(small, vocab_size=rows or len(tokenizer))
  params = jax.tree.map(np.asarray, init_params(architecture, jax.random.key(0)))
  tensor_files.write_tensors(folder, huggingface.tensors_of(params, architecture), dtype="float32")

  config = huggingface.config_from_architecture(architecture)
  (folder / "config.json").write_text(json.dumps(config))
  if generation:
    (folder / "generation_config.json").write_text(json.dumps(generation))
  tokenizer.save_pretrained(folder)
  return folder
