"""Keys and values of the tokens seen so far: what makes a decoding step cost one token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.parallel import sharding


class Cache(NamedTuple):
  """Keys and values of the tokens seen so far, for decoding.

  Attributes:
    keys: of every layer, rotated.
    values: of every layer.
    filled: tokens written so far, between 0 and T.
    valid: False at padding.
    prefix_keys: of the prefix that all rows share, or None.
    prefix_values: of the prefix that all rows share, or None.
  """

  keys: Float[Array, "layers batch T kv_heads head_dim"]
  values: Float[Array, "layers batch T kv_heads head_dim"]
  filled: Int[Array, ""]
  valid: Bool[Array, "batch T"]
  prefix_keys: Float[Array, "layers P kv_heads head_dim"] | None = None
  prefix_values: Float[Array, "layers P kv_heads head_dim"] | None = None

  @property
  def length(self) -> int:
    """T, the tokens that there is room for."""
    return self.valid.shape[1]


def empty_cache(architecture: Architecture, batch: int, length: int, dtype=jnp.float32) -> Cache:
  """A cache with room for `length` tokens of each of `batch` rows; a shared prefix is held beside it."""
  a = architecture
  shape = (a.n_layers, batch, length, a.n_kv_heads, a.head_dim)

  def empty():
    return sharding.reshard(jnp.zeros(shape, dtype), None, "batch", None, "heads", None)

  valid = sharding.reshard(jnp.zeros((batch, length), bool), "batch", None)
  return Cache(empty(), empty(), jnp.zeros((), jnp.int32), valid)


def with_room(cache: Cache, length: int) -> Cache:
  """The cache with room for `length` tokens of each row, T or more."""
  more = length - cache.length

  def pad(x, axis: int):
    return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])

  return cache._replace(
    keys=pad(cache.keys, 2), values=pad(cache.values, 2), valid=pad(cache.valid, 1)
  )


def repeated(cache: Cache, batch: int) -> Cache:
  """The cache with each row repeated, adjacent, so that there are `batch` rows."""
  return cache._replace(
    keys=repeat_rows(cache.keys, batch, 1, None, "batch", None, "heads", None),
    values=repeat_rows(cache.values, batch, 1, None, "batch", None, "heads", None),
    valid=repeat_rows(cache.valid, batch, 0, "batch", None),
  )


def repeat_rows(x: jax.Array, batch: int, axis: int, *axes) -> jax.Array:
  """`x` with each row along `axis` repeated, so that there are `batch`; `axes` are its logical axes."""
  n = x.shape[axis]
  if batch == n:
    return x
  layout = sharding.activation(axes, (*x.shape[:axis], batch, *x.shape[axis + 1 :]))
  return jnp.repeat(x, batch // n, axis=axis, out_sharding=layout)


def chosen_rows(cache: Cache, rows: Int[Array, " kept"]) -> Cache:
  """The cache of some of its rows, in the order given; the shared prefix stays."""
  return cache._replace(
    keys=cache.keys[:, rows], values=cache.values[:, rows], valid=cache.valid[rows]
  )
