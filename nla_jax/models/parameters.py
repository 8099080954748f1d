"""Parameter trees of a `Transformer`: fresh, cut to their first blocks, rounded for products."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.products import as_bits
from nla_jax.models.transformer import Transformer
from nla_jax.parallel import precision

# Matrices that only ever enter products; the embedding is also read by the residual stream.
OPERANDS = ("query", "key", "value", "output", "gate", "up", "down", "unembedding")
MATRICES = ("embedding", *OPERANDS)


def init_params(architecture: Architecture, key: jax.Array, stop_layer: int | None = None) -> dict:
  """Random parameters; leaves below `layers` are stacked over layers (`Block.setup` has names and shapes)."""
  model = Transformer(architecture, stop_layer)
  return model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def lower_params(params: dict, n_layers: int) -> dict:
  """The first `n_layers` blocks of a parameter tree, without final norm and unembedding."""
  layers = jax.tree.map(lambda leaf: leaf[:n_layers], params["layers"])
  return {"embedding": params["embedding"], "layers": layers}


def rounded(params: Any, dtype) -> Any:
  """A parameter tree whose matrices that only ever enter products are rounded to the products' dtype.

  A forward on it equals a forward on `params` bit for bit, and it is half as large. Norms, biases and the embedding
  stay as they are, since the residual stream reads them.
  """

  def cast(path, leaf):
    return leaf.astype(dtype) if path[-1].key in OPERANDS else leaf

  return jax.tree_util.tree_map_with_path(cast, params)


def as_base(params: Any) -> Any:
  """A language model's tree as the frozen base of adapters: its matrices in bfloat16, on CPUs as bits.

  Norms and biases stay as they are.
  """

  @functools.partial(jax.jit, donate_argnums=0)
  def pack(leaf):
    return _in_place(leaf.astype(jnp.bfloat16))

  def cast(path, leaf):
    if path[-1].key not in MATRICES or leaf.dtype == jnp.uint16:
      return leaf
    return pack(leaf)

  return jax.tree_util.tree_map_with_path(cast, params)


def kept_narrow(params: Any) -> Any:
  """A tree that was loaded in bfloat16, as it is computed with: matrices as in `as_base`, all else in float32.

  A sum with a norm's weight in bfloat16 would be rounded, so no weight is but those that enter products.
  """

  def keep(path, leaf):
    if leaf.dtype != jnp.bfloat16:
      return leaf
    return _in_place(leaf) if path[-1].key in MATRICES else leaf.astype(jnp.float32)

  return jax.tree_util.tree_map_with_path(keep, params)


def _in_place(leaf: jax.Array) -> jax.Array:
  """A matrix in bfloat16 as it lies in memory."""
  return as_bits(leaf) if precision.platform() == "cpu" else leaf


def unembedding(params: Any) -> Shaped[Array, "vocabulary d_model"]:
  """The matrix that turns hidden states into logits: the embedding where the model is tied.

  In the token loop on CPUs, and in a frozen base, it is uint16 bits (`products.as_bits`).
  """
  return params.get("unembedding", params["embedding"])


def transformer(params: dict) -> Any:
  """The leaves of a model's language model that are not adapters: the frozen base's where there is one."""
  return params.get("base", params["transformer"])
