"""The copy of a model's parameters that the token loop reads.

Matrices are in the compute dtype and whole over `fsdp`: sharded, all of them would be gathered again at every token.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nla_jax.models.merge import without_adapters
from nla_jax.models.parameters import MATRICES
from nla_jax.models.products import as_bits, from_bits
from nla_jax.models.verbalizer import Verbalizer
from nla_jax.parallel import precision, sharding

# With so few rows a token's time is that of reading the weights, and the frozen base is half as large as a merged copy.
FEW_ROWS = 8


def decodable(params: dict, model: Verbalizer, rows: int) -> tuple[dict, Verbalizer]:
  """An AV's parameters as the token loop reads them, and the AV that reads them.

  In float32 on one device adapters are added to the copy: nothing is rounded, and a token has no narrow products. For
  few rows nothing is copied: adapters and their base, as bits, are read where they lie.

  Args:
    params: the AV's.
    model: the AV.
    rows: answers that are sampled together.
  """
  if model.lora is None or model.dtype != jnp.float32 or sharding.has_mesh():
    return decode_copy(params, model.dtype), model
  if rows <= FEW_ROWS:
    return params, model
  return without_adapters(params, model), model.clone(lora=None)


def decode_copy(params: dict, dtype) -> dict:
  """The parameters {"transformer": …} as the token loop reads them, matrices on CPUs as bits (see `as_bits`)."""
  leaves, tree = jax.tree.flatten(params)
  specs = jax.tree.leaves(sharding.parameter_specs(params, decode=True))
  dtypes = jax.tree.leaves(_dtypes(params, dtype))
  in_place = jax.tree.leaves(read_in_place(params, dtype))

  copies = {}
  # One after the other and the largest first, while there is room: a copy needs its memory twice while it is made.
  for i in copy_order(leaves):
    copies[i] = leaves[i] if in_place[i] else leaf_copy(leaves[i], specs[i], dtypes[i])
  return jax.tree.unflatten(tree, [copies[i] for i in range(len(leaves))])


def _dtypes(params: dict, dtype) -> dict:
  """The dtype of each copy, before matrices are packed."""

  def of_leaf(path, leaf):
    inside = path[0].key in ("transformer", "base")
    matrix = inside and (path[-1].key in MATRICES or "_lora_" in path[-1].key)
    return jnp.dtype(dtype if matrix else leaf.dtype)

  return jax.tree_util.tree_map_with_path(of_leaf, params)


def read_in_place(params: dict, dtype) -> dict:
  """Which leaves of a tree (arrays or shapes) the token loop reads where they lie.

  Those that have the products' dtype already and are whole over `fsdp`. What is trained is in float32, so where
  products are too it is copied: an update may take the memory of what it replaces.
  """

  def of_leaf(path, leaf, wanted):
    found = jnp.dtype(jnp.bfloat16) if leaf.dtype == jnp.uint16 else leaf.dtype
    frozen = path[0].key == "base" or leaf.dtype in (jnp.bfloat16, jnp.uint16)
    return frozen and found == wanted and sharding.is_gathered(leaf)

  return jax.tree_util.tree_map_with_path(of_leaf, params, _dtypes(params, dtype))


def copy_order(leaves: list[Any]) -> list[int]:
  """In which order parameters are copied."""
  return sorted(range(len(leaves)), key=lambda i: -leaves[i].size)


@functools.partial(jax.jit, static_argnames=("spec", "dtype"))
def leaf_copy(leaf, spec, dtype):
  """One parameter of `decode_copy`."""
  leaf = from_bits(leaf).astype(dtype)
  if dtype == jnp.bfloat16 and precision.platform() == "cpu":
    leaf = as_bits(leaf)
  return jax.sharding.reshard(leaf, spec) if sharding.has_mesh() else leaf
