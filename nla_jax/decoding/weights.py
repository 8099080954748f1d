"""The copy of a model's parameters that the token loop reads.

Matrices are in the compute dtype and whole over `fsdp`: sharded, all of them would be gathered again at every token.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nla_jax.models.parameters import MATRICES
from nla_jax.models.products import as_bits, from_bits
from nla_jax.parallel import precision, sharding


def decode_copy(params: dict, dtype) -> dict:
  """The parameters {"transformer": …} as the token loop reads them, matrices on CPUs as bits (see `as_bits`)."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(params)
  specs = jax.tree.leaves(sharding.parameter_specs(params, decode=True))
  copies = {}
  # One after the other and the largest first, while there is room: a copy needs its memory twice while it is made.
  for i in copy_order([leaf for _, leaf in leaves]):
    path, leaf = leaves[i]
    inside = path[0].key in ("transformer", "base")
    matrix = inside and (path[-1].key in MATRICES or "_lora_" in path[-1].key)
    copies[i] = _copy(leaf, specs[i], dtype if matrix else leaf.dtype)
  return jax.tree.unflatten(tree, [copies[i] for i in range(len(leaves))])


def copy_order(leaves: list[Any]) -> list[int]:
  """In which order parameters are copied."""
  return sorted(range(len(leaves)), key=lambda i: -leaves[i].size)


def _copy(leaf, spec, dtype):
  # A frozen base's matrices lie on one device as the loop reads them: they are not copied.
  if leaf.dtype == jnp.uint16 and dtype == jnp.bfloat16 and not sharding.has_mesh():
    return leaf
  return leaf_copy(leaf, spec, dtype)


@functools.partial(jax.jit, static_argnames=("spec", "dtype"))
def leaf_copy(leaf, spec, dtype):
  """One parameter of `decode_copy`."""
  leaf = from_bits(leaf).astype(dtype)
  if dtype == jnp.bfloat16 and precision.platform() == "cpu":
    leaf = as_bits(leaf)
  return jax.sharding.reshard(leaf, spec) if sharding.has_mesh() else leaf
