"""Host arrays onto devices: each device's piece is cut from a view and copied straight to where it stays.

The host arrays may be memory-mapped files, so a process reads only the bytes that its devices hold, and a stack of
layers never exists on the host: it is a buffer on the devices that is filled in place, one layer after another.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P


def copy_to_devices(array: np.ndarray, sharding: Sharding, dtype) -> tuple[jax.Array, float]:
  """One host array on the devices.

  Args:
    array: floats, any strides, possibly memory-mapped.
    sharding: where it goes, on a mesh or on one device.
    dtype: on the devices.

  Returns:
    (the array in `dtype`, its largest magnitude: NaN where it holds one).
  """
  placed = _copy(array, sharding)
  # On the devices the cast and the check read the array once, in parallel; the host would read it again.
  if placed.dtype == dtype:
    return placed, float(jax.jit(_largest)(placed))

  cast = jax.jit(_cast, static_argnums=1, out_shardings=(sharding, _whole(sharding)))
  placed, largest = cast(placed, np.dtype(dtype))
  return placed, float(largest)


def stack(
  read: Callable[[int], np.ndarray], shape: tuple[int, ...], sharding: Sharding, dtype
) -> tuple[jax.Array, np.ndarray]:
  """Copies host arrays of one shape to the devices, stacked along a new leading axis.

  There is never more than one of the arrays beside the result, on the host or on the devices.

  Args:
    read: function of the index 0..n−1 that gives a host array of shape `shape[1:]`, as `copy_to_devices` takes it.
    shape: of the stack, [n, …].
    sharding: of the stack, on a mesh (with the leading axis whole) or on one device.
    dtype: on the devices.

  Returns:
    (the stack, [n] float32: the largest magnitude of each layer, NaN where it holds one).
  """
  stacked = jnp.zeros(shape, dtype, device=sharding)
  largest = jnp.zeros(shape[0], jnp.float32, device=_whole(sharding))

  # Donated: each call fills the same buffer, so the stack exists once.
  write = jax.jit(_write, donate_argnums=(0, 1), out_shardings=(sharding, _whole(sharding)))
  of_one = _of_one(sharding)
  for layer in range(shape[0]):
    tensor = _copy(read(layer), of_one)
    stacked, largest = write(stacked, largest, tensor, np.int32(layer))
    # Its memory is free before the next one is copied.
    del tensor
    jax.block_until_ready(stacked)
  return stacked, np.asarray(largest)


def _whole(sharding: Sharding) -> Sharding:
  """The sharding on the same devices in which every one of them holds the whole array."""
  return (
    sharding if isinstance(sharding, SingleDeviceSharding) else NamedSharding(sharding.mesh, P())
  )


def _of_one(sharding: Sharding) -> Sharding:
  """The sharding of one array of a stack that has this sharding."""
  if isinstance(sharding, SingleDeviceSharding):
    return sharding
  if sharding.spec and sharding.spec[0] is not None:
    raise ValueError(f"the sharding {sharding.spec} of a stack cuts its leading axis")
  return NamedSharding(sharding.mesh, P(*sharding.spec[1:]))


def _copy(array: np.ndarray, sharding: Sharding) -> jax.Array:
  """The array on the devices in its own dtype."""
  # By its place in the array: a piece that several devices hold is read from the file once, then copied between them.
  read, pieces = {}, []
  for device, index in sharding.addressable_devices_indices_map(array.shape).items():
    key = tuple((part.start, part.stop) for part in index)
    pieces.append(jax.device_put(read.get(key, array[index]), device, may_alias=False))
    read.setdefault(key, pieces[-1])
  return jax.make_array_from_single_device_arrays(array.shape, sharding, pieces)


def _largest(tensor):
  size = jnp.abs(tensor.astype(jnp.float32))
  # Asked for by itself: a maximum may pass over a NaN on some backends.
  return jnp.where(jnp.isfinite(size).all(), size.max(initial=0.0), jnp.nan)


def _cast(tensor, dtype):
  tensor = tensor.astype(dtype)
  return tensor, _largest(tensor)


def _write(stacked, largest, tensor, layer):
  """`stacked` with `tensor` as its layer `layer`, and `largest` with that tensor's."""
  tensor = tensor.astype(stacked.dtype)
  largest = largest.at[layer].set(_largest(tensor))
  if stacked.dtype.itemsize != 2:
    return jax.lax.dynamic_update_index_in_dim(stacked, tensor, layer, 0), largest

  # XLA's CPU backend updates bfloat16 in place only as bits.
  bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint16)
  updated = jax.lax.dynamic_update_index_in_dim(bits(stacked), bits(tensor), layer, 0)
  return jax.lax.bitcast_convert_type(updated, stacked.dtype), largest
