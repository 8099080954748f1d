"""Loads a base model from where it lies: a Python package, a GGUF file, a folder, a hub id."""

import dataclasses

import jax
import numpy as np

from nla_jax.interop.base_models import find, gguf, huggingface, random_model
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.parallel import sharding


def load_pretrained(
  name: str, *, stop_layer: int | None = None, dtype: str = "float32", weights: bool = True
) -> Pretrained:
  """Loads architecture, weights and tokenizer.

  The parameters are laid out for the mesh in context (`jax.set_mesh`), or lie on one device where there is none. From
  safetensors, a process reads only what its devices hold.

  Args:
    name: `package:NAME` (a GGUF file, in one or in parts, inside installed Python packages), the path of a
      `.gguf` file (of one in numbered parts, any part), a Hugging Face directory with safetensors, a hub id such as
      `Qwen/Qwen2.5-7B-Instruct`, or `random:tiny`.
    stop_layer: K, 0-based. Only blocks 0..K are fetched and read, without the final norm and the unembedding.
    dtype: of the parameters, `float32` (masters) or `bfloat16`; `auto` keeps what is bfloat16 in a folder's files.
    weights: load the parameters too. Without them, a directory's headers are still checked: number of layers, shapes,
      whole files.

  Raises:
    NLAError: nothing is found under the name, or what is found cannot be read.
  """
  located = find.locate(name)
  options = {"stop_layer": stop_layer, "dtype": dtype, "weights": weights}
  if located.kind == "random":
    found = random_model.random_model(name, stop_layer)
    kept = np.dtype("float32" if dtype == "auto" else dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(kept), found.params)
    found = dataclasses.replace(found, params=sharding.shard_params(params))
  elif located.kind == "gguf":
    # What a GGUF holds is wider than bfloat16 once it is unpacked.
    found = gguf.read_gguf(
      located.path, **options | {"dtype": "float32" if dtype == "auto" else dtype}
    )
  else:
    # Of a hub model in shards, only those that hold blocks 0..K are fetched.
    folder = located.path or find.download(name, stop_layer=stop_layer)
    found = huggingface.read_directory(folder, **options)

  # The name as given goes into stores and sidecars; a path in some cache would mean nothing elsewhere.
  return dataclasses.replace(found, source=name)
