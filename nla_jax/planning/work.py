"""How much one device has to compute and to read, counted from a program's jaxpr.

XLA's own cost analysis counts the body of a loop once, so the counting is done here: every matrix product of the
traced program, backward passes and recomputation included, as often as its loops run. Arrays carry their sharding in
their types (Explicit axes), so the count is that of one device, work done by every replica included.
"""
import math
from typing import NamedTuple

import jax
from jax.extend import core


class Work(NamedTuple):
  """Of one device and one call: operations of matrix products, bytes of their operands and results."""

  flops: float = 0.0
  bytes: float = 0.0

  def __add__(self, other):
    return Work(self.flops + other.flops, self.bytes + other.bytes)

  def times(self, n: int) -> "Work":
    return Work(n * self.flops, n * self.bytes)


def work_of(jaxpr, loop: int = 1) -> Work:
  """The work of a jaxpr.

  Args:
    jaxpr: of a function traced with its arguments' shardings.
    loop: trips of every `while` loop, which a program does not say (the token loop: at most the cap).
  """
  total = Work()
  for equation in jaxpr.eqns:
    inner = [work_of(one, loop) for one in _jaxprs(equation)]
    name = equation.primitive.name
    if name == "dot_general":
      total += _product(equation)
    elif name == "scan":
      total += inner[0].times(equation.params["length"])
    elif name == "while":
      total += sum(inner, Work()).times(loop)
    elif name == "cond":
      total += max(inner, key=lambda work: work.flops, default=Work())
    elif name == "pallas_call":
      total += sum(inner, Work()).times(math.prod(equation.params["grid_mapping"].grid))
    else:
      total += sum(inner, Work())
  return total


def _jaxprs(equation) -> list:
  """The jaxprs among an equation's parameters."""
  leaves = [leaf for value in equation.params.values()
            for leaf in (value if isinstance(value, (tuple, list)) else (value,))]
  opened = [leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in leaves]
  return [leaf for leaf in opened if isinstance(leaf, core.Jaxpr)]


def _product(equation) -> Work:
  left, right = (_local_shape(operand.aval) for operand in equation.invars)
  out = _local_shape(equation.outvars[0].aval)
  (contracted, _), _ = equation.params["dimension_numbers"]
  size = lambda shape, operand: math.prod(shape) * operand.aval.dtype.itemsize
  moved = size(left, equation.invars[0]) + size(right, equation.invars[1]) + size(out, equation.outvars[0])
  return Work(2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted), moved)


def _local_shape(aval) -> tuple[int, ...]:
  """The shape of one device's piece."""
  sharding = getattr(aval, "sharding", None)
  if not isinstance(sharding, jax.sharding.NamedSharding) or sharding.mesh.empty:
    return aval.shape
  return sharding.shard_shape(aval.shape)


def held_bytes(tree) -> int:
  """Bytes that one device holds of a tree of arrays or of shapes with shardings."""
  piece = lambda x: x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
  return sum(math.prod(piece(x)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
