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


def copy_to_devices(array: np.ndarray, sharding: Sharding, dtype) -> tuple[jax.Array, bool]:
  """One host array on the devices.

  Args:
    array: floats, any strides, possibly memory-mapped.
    sharding: where it goes, on a mesh or on one device.
    dtype: on the devices.

  Returns:
    (the array in `dtype`, whether every value in it is finite).
  """
  placed = _copy(array, sharding)
  # On the devices the cast and the check read the array once, in parallel; the host would read it again.
  if placed.dtype == dtype:
    return placed, bool(jax.jit(_all_finite)(placed))

  cast = jax.jit(_cast, static_argnums=1, out_shardings=(sharding, _whole(sharding)))
  placed, finite = cast(placed, np.dtype(dtype))
  return placed, bool(finite)


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
    (the stack, [n] bool: whether every value of a layer is finite).
  """
  stacked = jnp.zeros(shape, dtype, device=sharding)
  finite = jnp.ones(shape[0], bool, device=_whole(sharding))

  # Donated: each call fills the same buffer, so the stack exists once.
  write = jax.jit(_write, donate_argnums=(0, 1), out_shardings=(sharding, _whole(sharding)))
  of_one = _of_one(sharding)
  for layer in range(shape[0]):
    tensor = _copy(read(layer), of_one)
    stacked, finite = write(stacked, finite, tensor, np.int32(layer))
    # Its memory is free before the next one is copied.
    del tensor
    jax.block_until_ready(stacked)
  return stacked, np.asarray(finite)


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


def _all_finite(tensor):
  return jnp.isfinite(tensor.astype(jnp.float32)).all()


def _cast(tensor, dtype):
  tensor = tensor.astype(dtype)
  return tensor, _all_finite(tensor)


def _write(stacked, finite, tensor, layer):
  """`stacked` with `tensor` as its layer `layer`, and `finite` with what that tensor is."""
  tensor = tensor.astype(stacked.dtype)
  finite = finite.at[layer].set(_all_finite(tensor))
  if stacked.dtype.itemsize != 2:
    return jax.lax.dynamic_update_index_in_dim(stacked, tensor, layer, 0), finite

  # XLA's CPU backend updates bfloat16 in place only as bits.
  bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint16)
  updated = jax.lax.dynamic_update_index_in_dim(bits(stacked), bits(tensor), layer, 0)
  return jax.lax.bitcast_convert_type(updated, stacked.dtype), finite
