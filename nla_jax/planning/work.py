"""How much one device has to compute and to read, counted from a program's jaxpr.

XLA's own cost analysis counts the body of a loop once, so the counting is done here: every matrix product of the
traced program, backward passes and recomputation included, as often as its loops run. Arrays carry their sharding in
their types (Explicit axes), so the count is that of one device, work done by every replica included.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
from jax.extend import core


class Work(NamedTuple):
  """The matrix products of one call on one device.

  Attributes:
    flops: operations, two a multiply-add.
    bytes: of their operands and results.
  """

  flops: float = 0.0
  bytes: float = 0.0

  def __add__(self, other):
    return Work(self.flops + other.flops, self.bytes + other.bytes)

  def times(self, n: int) -> "Work":
    """The work of n such calls."""
    return Work(n * self.flops, n * self.bytes)


def work_of(jaxpr, loop: int = 1) -> Work:
  """The work of a jaxpr; see `products` for its arguments."""
  return _sum(products(jaxpr, loop))


def products(jaxpr, loop: int = 1) -> Iterator[tuple[core.JaxprEqn, int]]:
  """Yields every matrix product of a jaxpr and how often it runs. Of branches, only the one with most work counts.

  Args:
    jaxpr: of a function traced with its arguments' shardings.
    loop: trips of every `while` loop, which a program does not say (the token loop: at most the cap).
  """
  for equation in jaxpr.eqns:
    inner, trips = [list(products(one, loop)) for one in _jaxprs(equation)], 1
    match equation.primitive.name:
      case "dot_general":
        yield equation, 1
      case "scan":
        trips = equation.params["length"]
      case "while":
        trips = loop
      case "cond":
        inner = [max(inner, key=lambda branch: _sum(branch).flops)]
      case "pallas_call":
        trips = math.prod(equation.params["grid_mapping"].grid)

    # A product inside two loops runs as often as both of them together.
    for product, times in itertools.chain(*inner):
      yield product, trips * times


def _sum(some: Iterable[tuple[core.JaxprEqn, int]]) -> Work:
  return sum((product_work(product).times(times) for product, times in some), Work())


def _jaxprs(equation) -> list:
  """The jaxprs among an equation's parameters."""
  leaves = []
  for value in equation.params.values():
    # The branches of a `cond` are a tuple.
    leaves += value if isinstance(value, (tuple, list)) else [value]

  opened = [leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in leaves]
  return [leaf for leaf in opened if isinstance(leaf, core.Jaxpr)]


def product_work(equation: core.JaxprEqn) -> Work:
  """The work of one `dot_general`.

  Devices share a product as they share its arrays: by every mesh axis that cuts one of them, once.
  """
  arrays = [one.aval for one in (*equation.invars, equation.outvars[0])]
  (contracted, _), _ = equation.params["dimension_numbers"]
  whole = 2.0 * math.prod(arrays[2].shape) * math.prod(arrays[0].shape[axis] for axis in contracted)

  shares = {}
  for layout in filter(None, map(_layout, arrays)):
    for axes in layout.spec:
      # A dimension is cut by no axis, by one, or by several.
      cuts = (axes,) if isinstance(axes, str) else axes or ()
      shares |= {axis: layout.mesh.shape[axis] for axis in cuts}
  return Work(whole / math.prod(shares.values()), sum(map(_local_bytes, arrays)))


def _layout(aval) -> jax.sharding.NamedSharding | None:
  """How an array is cut; None where it is one device's already (no mesh, or inside `shard_map`)."""
  sharding = getattr(aval, "sharding", None)
  if (
    not isinstance(sharding, jax.sharding.NamedSharding)
    or sharding.mesh.empty
    or sharding.mesh.manual_axes
  ):
    return None
  return sharding


def _local_bytes(aval) -> int:
  layout = _layout(aval)
  shape = aval.shape if layout is None else layout.shard_shape(aval.shape)
  return math.prod(shape) * aval.dtype.itemsize


def held_bytes(tree, beside=()) -> int:
  """Bytes that one device holds of a tree of arrays or of shapes with shardings, each leaf counted once.

  Args:
    tree: the leaves.
    beside: a tree whose leaves are counted elsewhere: one that is in both is not counted here.
  """
  elsewhere = {id(leaf) for leaf in jax.tree.leaves(beside)}
  # A frozen base is a part of several models' trees and lies on the devices once.
  own = {id(leaf): leaf for leaf in jax.tree.leaves(tree) if id(leaf) not in elsewhere}

  def local_shape(x):
    return x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)

  return sum(math.prod(local_shape(x)) * x.dtype.itemsize for x in own.values())
