"""Matrix products whose operands are rounded to the compute dtype and whose sums are float32.

The residual stream stays float32; only operands are rounded, in the backward pass too. On a CPU with AVX512-BF16,
XLA runs a bfloat16 × bfloat16 → float32 product at twice its float32 speed (409 against 209 GFLOP/s on two Zen 4
cores, jax 0.10.2) while the same product with a bfloat16 *result* is slower than float32: hence the explicit
float32 result. Plain autodiff would multiply a float32 cotangent with a bfloat16 operand, which runs at float32
speed everywhere; hence the custom derivative.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import BFloat16, Float, Int, Shaped, UInt16

from nla_jax.arrays import Array
from nla_jax.parallel import sharding


def as_bits(x: BFloat16[Array, "*shape"]) -> UInt16[Array, "*shape"]:
  """A bfloat16 array as uint16, which `einsum` and `from_bits` read as bfloat16 again.

  XLA's CPU backend turns a whole stack of bfloat16 weights into float32 before it slices a layer out of it, and rounds
  the slice again at every use. A token of 64 rows took 177 ms of processor time in the products, and 108 from bits.
  """
  return jax.lax.bitcast_convert_type(x, jnp.uint16)


def from_bits(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
  """What `as_bits` was given; anything else unchanged."""
  return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


class FrozenLayer(NamedTuple):
  """One layer's matrix in a stack that is not trained; a product takes it out where it lies.

  Attributes:
    stack: [layers, …], perhaps of more layers than the model that reads it has, perhaps packed by `as_bits`.
    index: of the layer.
  """

  stack: Shaped[Array, "layers ..."]
  index: Int[Array, ""]

  def take(self) -> Shaped[Array, "..."]:
    """The layer's matrix."""
    return from_bits(jax.lax.dynamic_index_in_dim(self.stack, self.index, 0, keepdims=False))


def einsum(
  subscripts: str,
  a: Float[Array, "..."],
  b: Shaped[Array, "..."] | FrozenLayer,
  dtype,
  *axes: str | None,
) -> Float[Array, "..."]:
  """`jnp.einsum(subscripts, a, b)` with operands in `dtype`, a float32 result, and gradients computed alike.

  Every index of one operand must occur in the other or in the result: no index is summed on its own.

  Args:
    subscripts: of the product.
    a: the left operand.
    b: the right operand. Where a mesh is set and `b` is a parameter, it is gathered over `fsdp` after rounding. It may
      be packed by `as_bits`, or a `FrozenLayer`; then it has no gradient.
    dtype: of the operands in the product.
    axes: the result's logical axes (`nla_jax.parallel.sharding`); without them jax infers the layout.
  """
  if isinstance(b, FrozenLayer) or b.dtype == jnp.uint16:
    return _frozen_einsum(subscripts, jnp.dtype(dtype), axes, a, b)
  return _rounded_einsum(subscripts, jnp.dtype(dtype), axes, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _rounded_einsum(subscripts: str, dtype, axes, a, b):
  # Rounded before it is gathered: half of the bytes cross the wires.
  right = sharding.unshard(from_bits(b).astype(dtype))
  return _product(subscripts, a.astype(dtype), right, _layout(subscripts, axes, a, b))


def _product(subscripts: str, a, b, layout):
  return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32, out_sharding=layout)


def _layout(subscripts: str, axes, a, b):
  """The result's PartitionSpec: None (left to jax) where no axes are given or no mesh is set."""
  if not axes:
    return None
  inputs, out = subscripts.split("->")
  sizes = dict(zip(inputs.replace(",", ""), (*a.shape, *b.shape)))
  return sharding.activation(axes, [sizes[index] for index in out])


def _forward(subscripts: str, dtype, axes, a, b):
  return _rounded_einsum(subscripts, dtype, axes, a, b), (a, b)


def _backward(subscripts: str, dtype, axes, saved, g):
  a, b = saved
  inputs, out = subscripts.split("->")
  left, right = inputs.split(",")

  def layout_of(x):
    return jax.typeof(x).sharding if sharding.has_mesh() else None

  # The cotangent is rounded as well: a float32 operand would run at float32 speed everywhere.
  g = g.astype(dtype)
  gathered = sharding.unshard(b.astype(dtype))
  da = _product(f"{out},{right}->{left}", g, gathered, layout_of(a))
  db = _product(f"{left},{out}->{right}", a.astype(dtype), g, layout_of(b))
  return da.astype(a.dtype), db.astype(b.dtype)


_rounded_einsum.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _frozen_einsum(subscripts: str, dtype, axes, a, frozen):
  return _rounded_einsum(subscripts, dtype, axes, a, _taken(frozen))


def _taken(frozen: FrozenLayer | UInt16[Array, "..."]) -> Shaped[Array, "..."]:
  """The matrix of a frozen product."""
  return frozen.take() if isinstance(frozen, FrozenLayer) else from_bits(frozen)


@struct.dataclass
class _Saved:
  """What the backward pass of a frozen product needs: the stack and where in it, and of `a` only its type.

  Neither operand is kept: without a gradient of the matrix, `a` itself is not read again.
  """

  frozen: Any
  dtype: Any = struct.field(pytree_node=False)
  layout: Any = struct.field(pytree_node=False)


def _frozen_forward(subscripts: str, dtype, axes, a, frozen):
  layout = jax.typeof(a).sharding if sharding.has_mesh() else None
  return _frozen_einsum(subscripts, dtype, axes, a, frozen), _Saved(frozen, a.dtype, layout)


def _frozen_backward(subscripts: str, dtype, axes, saved: _Saved, g):
  inputs, out = subscripts.split("->")
  left, right = inputs.split(",")
  gathered = sharding.unshard(_taken(saved.frozen).astype(dtype))
  da = _product(f"{out},{right}->{left}", g.astype(dtype), gathered, saved.layout)
  return da.astype(saved.dtype), None


_frozen_einsum.defvjp(_frozen_forward, _frozen_backward)
