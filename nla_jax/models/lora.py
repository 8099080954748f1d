"""LoRA: small trained matrices beside frozen ones (Hu et al. 2021, arXiv 2106.09685).

A frozen product y = x W becomes y = x W + (x A) B · alpha / rank. B starts at zero, so that an adapted model starts as
its base. Only A and B have gradients and optimizer state. The base's matrices are stacks over layers that several
models share; a product takes its layer out of the stack where it lies.

A tree with adapters has the base beside its trained leaves, under `base`:

  {"transformer": {"layers": {"query_lora_a": …, "query_lora_b": …, …}}, "head": …, "base": the target's own tree}
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.products import FrozenLayer, einsum, from_bits
from nla_jax.parallel import sharding

# The matrices of a block that may be adapted.
TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class Lora:
  """How a model is adapted.

  Attributes:
    rank: width of A and height of B, at least 1.
    alpha: the adapter's product is multiplied by alpha / rank.
    targets: the block's matrices that have an adapter.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] = TARGETS

  @property
  def scale(self) -> float:
    """alpha / rank."""
    return self.alpha / self.rank


# A frozen model without any adapter: it too is read where it lies, whatever blocks it has above.
FROZEN = Lora(1, 1.0, ())


def names(target: str) -> tuple[str, str]:
  """What A and B of a matrix are called in a parameter tree."""
  return f"{target}_lora_a", f"{target}_lora_b"


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
  """A's start: uniform within ±1/√inputs, as PEFT draws it."""
  bound = math.prod(shape[:-1]) ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def entries(architecture: Architecture, lora: Lora) -> dict[str, tuple]:
  """{name: (initializer, shape)} of the adapters of one block."""
  table = {}
  for target in lora.targets:
    inputs, outputs = architecture.matrices[target]
    a, b = names(target)
    table[a] = (_uniform, (*inputs, lora.rank))
    table[b] = (jax.nn.initializers.zeros, (lora.rank, *outputs))
  return table


def adapter_params(architecture: Architecture, lora: Lora, key: jax.Array) -> dict:
  """Fresh adapters of all blocks, float32: {"layers": {name: [layers, …]}}."""
  table, layers = entries(architecture, lora), architecture.n_layers
  keys = jax.random.split(key, (len(table), layers))
  stacks = {
    name: jnp.stack([initialize(one, shape) for one in keys[i]])
    for i, (name, (initialize, shape)) in enumerate(table.items())
  }
  return {"layers": stacks}


def adapted(
  subscripts: str,
  x: Float[Array, "..."],
  w: Shaped[Array, "..."] | FrozenLayer,
  a: Float[Array, "..."],
  b: Float[Array, "..."],
  scale: float,
  dtype,
  *axes,
) -> Float[Array, "..."]:
  """x W + (x A) B · scale with a frozen W.

  Where A B has fewer entries than what x sends through the two, and nothing is rounded, A B is added to W first. Then
  the forward pass has one product instead of three and the backward pass five instead of six, and no result is added
  to another. In bfloat16 a small A B would be rounded away.

  Args:
    subscripts: of x W.
    x: the left operand.
    w: the frozen matrix.
    a: [inputs, rank].
    b: [rank, outputs].
    scale: alpha / rank.
    dtype: of the operands.
    axes: the result's logical axes.
  """
  inputs, outputs = math.prod(a.shape[:-1]), math.prod(b.shape[1:])
  rows = x.size // inputs
  fewer = inputs * outputs < rows * (inputs + outputs)
  if fewer and jnp.dtype(dtype) == jnp.float32 and not sharding.has_mesh():
    return _merged_einsum(subscripts, scale, x.astype(jnp.float32), w, a, b)
  return einsum(subscripts, x, w, dtype, *axes) + scale * low_rank(
    subscripts, x, a, b, dtype, *axes
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _merged_einsum(subscripts: str, scale: float, x, w, a, b):
  return jnp.einsum(subscripts, x, _merged(w, a, b, scale))


def _merged(w, a, b, scale: float) -> Float[Array, "..."]:
  w = w.take() if isinstance(w, FrozenLayer) else from_bits(w)
  return w.astype(jnp.float32) + jnp.tensordot(a, b * scale, axes=1)


def _merged_forward(subscripts: str, scale: float, x, w, a, b):
  return _merged_einsum(subscripts, scale, x, w, a, b), (x, w, a, b)


def _merged_backward(subscripts: str, scale: float, saved, g):
  x, w, a, b = saved
  left, right, out, rows, contracted, new = _indices(subscripts)
  dx = jnp.einsum(f"{out},{right}->{left}", g, _merged(w, a, b, scale))
  # A gradient of the whole matrix is never made.
  low = jnp.einsum(f"{left},{contracted}r->{rows}r", x, a * scale)
  back = jnp.einsum(f"{out},r{new}->{rows}r", g, b * scale)
  da = jnp.einsum(f"{left},{rows}r->{contracted}r", x, back)
  db = jnp.einsum(f"{rows}r,{out}->r{new}", low, g)
  return dx, None, da, db


_merged_einsum.defvjp(_merged_forward, _merged_backward)


def _indices(subscripts: str) -> tuple[str, ...]:
  """(left, right, result, rows, contracted, new) of a product: what stays of each operand, and what is summed."""
  operands, out = subscripts.split("->")
  left, right = operands.split(",")
  contracted = "".join(index for index in right if index not in out)
  new = "".join(index for index in right if index in out)
  rows = "".join(index for index in left if index not in contracted)
  return left, right, out, rows, contracted, new


def low_rank(
  subscripts: str,
  x: Float[Array, "..."],
  a: Shaped[Array, "..."],
  b: Shaped[Array, "..."],
  dtype,
  *axes,
) -> Float[Array, "..."]:
  """(x A) B for a product `x, W -> y`, without the scale.

  Args:
    subscripts: of the frozen product; it has no index r.
    x: the left operand.
    a: [inputs, rank].
    b: [rank, outputs].
    dtype: of the operands.
    axes: the result's logical axes.
  """
  left, _, out, rows, contracted, new = _indices(subscripts)
  # No device holds a part of the rank: it is smaller than what would have to be sent.
  inner = (axes[0], *(None,) * len(rows)) if axes else ()
  low = einsum(f"{left},{contracted}r->{rows}r", x, a, dtype, *inner)
  return einsum(f"{rows}r,r{new}->{out}", low, b, dtype, *axes)


def delta(
  lora: Lora, a: Float[Array, "... rank"], b: Float[Array, "rank ..."]
) -> Float[Array, "..."]:
  """What an adapter adds to its matrix, float32: A [*inputs, rank] times B [rank, *outputs] times alpha / rank."""
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  # Accelerators round the operands of a float32 product unless they are told not to.
  return jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST) * lora.scale


def split(params: dict) -> tuple[dict, Any]:
  """A model's tree as (what is trained, the frozen base); the base is None where everything is trained."""
  trained = {name: tree for name, tree in params.items() if name != "base"}
  return trained, params.get("base")


def joined(trained: dict, base: Any) -> dict:
  """The tree that `split` took apart."""
  return trained if base is None else {**trained, "base": base}


def variables(params: dict) -> dict:
  """What a module's `apply` takes for the tree of a model whose language model is its part `transformer`."""
  trained, base = split(params)
  return (
    {"params": trained} if base is None else {"params": trained, "frozen": {"transformer": base}}
  )
