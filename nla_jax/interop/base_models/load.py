"""One function that gives a model from where it lies: a Python package, a GGUF file, a folder, a hub id."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from nla_jax.interop.base_models import find, gguf, huggingface, random_model
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.parallel import sharding


def load_pretrained(
  name: str, *, stop_layer: int | None = None, dtype: str = "float32", weights: bool = True
) -> Pretrained:
  """Loads architecture, weights and tokenizer.

  The parameters come in the layout of the mesh in context (`jax.set_mesh`), or on one device where there is none. From
  safetensors, a process reads only what its devices hold.

  Args:
    name: `package:NAME` (a GGUF file, in one or in parts, inside installed Python packages), the path of a
      `.gguf` file, a Hugging Face directory with safetensors, a hub id such as `Qwen/Qwen2.5-7B-Instruct`, or
      `random:tiny`.
    stop_layer: K, 0-based. Only blocks 0..K are fetched and read, without the final norm and the unembedding.
    dtype: of the parameters, `float32` (masters) or `bfloat16`.
    weights: load the parameters too. Without, a directory is still checked by its headers: layer count, shapes, whole
      files.

  Raises:
    NLAError: nothing is found under the name, or what is found cannot be read.
  """
  folder = Path(name).expanduser()
  options = {"stop_layer": stop_layer, "dtype": dtype, "weights": weights}
  if name.startswith("random:"):
    found = random_model.random_model(name, stop_layer)
    cast = lambda params: sharding.shard_params(
      jax.tree.map(lambda leaf: leaf.astype(np.dtype(dtype)), params)
    )
    found = dataclasses.replace(found, params=cast(found.params))
  elif name.startswith("package:"):
    found = gguf.read_gguf(find.find_package_gguf(name.removeprefix("package:")), **options)
  elif name.endswith(".gguf"):
    found = gguf.read_gguf(folder, **options)
  else:
    folder = folder if folder.is_dir() else find.download(name, stop_layer=stop_layer)
    found = huggingface.read_directory(folder, **options)
  return dataclasses.replace(found, source=name)
