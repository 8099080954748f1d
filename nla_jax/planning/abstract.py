"""Arrays that are only planned, in the layout that the stages give them, and the record of a program of such arrays."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.parallel import sharding


class Program(NamedTuple):
  """One compiled program.

  Attributes:
    name: of the stage, and of the part where a stage has several.
    function: jitted.
    arguments: trees of `jax.ShapeDtypeStruct` with shardings.
    rows: activations or explanations that one call works on.
    calls: in the config's whole run; 0 where the config does not say (the number of documents).
    beside: what else is on the devices while it runs, as such trees.
    keywords: static arguments.
    loop: trips of its token loop, at most.
  """

  name: str
  function: Any
  arguments: tuple
  rows: int
  calls: int
  beside: tuple = ()
  keywords: Mapping[str, Any] = MappingProxyType({})
  loop: int = 1


def placed(tree):
  """Shapes of a parameter or optimizer tree in its layout on the mesh in context."""

  def with_layout(x, layout):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)

  return jax.tree.map(with_layout, tree, sharding.parameter_shardings(tree))


def rows(*shape: int, dtype=jnp.float32):
  """The shape of an array whose leading axis is rows, in the layout that `sharding.shard_rows` gives it."""
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(shape))


def ids(*shape: int):
  """The shape of token ids that every device holds whole."""
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def given_back(function, *arguments):
  """Shapes of a function's results in the layout that it gives them."""
  mesh = jax.sharding.get_mesh()

  def place(x):
    # A result whose layout nothing decides lies whole on every device.
    spec = P() if x.sharding is None else x.sharding.spec
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

  return jax.tree.map(place, jax.eval_shape(function, *arguments))
