"""Parameter trees of a `Transformer`: fresh, cut to their first blocks, rounded for products."""

import jax
import jax.numpy as jnp

from nla_jax.models.architectures import Architecture
from nla_jax.models.transformer import Transformer


def init_params(architecture: Architecture, key: jax.Array, stop_layer: int | None = None):
  """Random parameters. `layers` holds layer-stacked leaves; see `Block.setup` for names and shapes."""
  model = Transformer(architecture, stop_layer)
  return model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def lower_params(params, n_layers: int):
  """The first `n_layers` blocks of a parameter tree, without final norm and unembedding."""
  layers = jax.tree.map(lambda leaf: leaf[:n_layers], params["layers"])
  return {"embedding": params["embedding"], "layers": layers}


OPERANDS = ("query", "key", "value", "output", "gate", "up", "down", "unembedding")


def rounded(params, dtype):
  """A parameter tree whose matrices that only ever enter products are rounded to the products' dtype.

  A forward on it equals a forward on `params` bit for bit, and it is half as large; norms, biases and the embedding,
  which the residual stream reads as it is, stay.
  """
  cast = lambda path, leaf: leaf.astype(dtype) if path[-1].key in OPERANDS else leaf
  return jax.tree_util.tree_map_with_path(cast, params)


def unembedding(params):
  """[vocab, d_model] matrix that turns hidden states into logits."""
  return params.get("unembedding", params["embedding"])
