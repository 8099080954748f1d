"""Host arrays onto devices: each device's piece is cut from a view and copied straight to where it stays.

The host arrays may be memory-mapped files, so a process reads only the bytes that its devices hold, and a stack of
layers never exists on the host: it is a buffer on the devices that is filled in place, one layer after another.
"""
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.errors import NLAError


def check_divisible(shape: tuple[int, ...], sharding: NamedSharding | None, name: str) -> None:
  """Raises NLAError where a mesh cannot cut an array of this shape into equal pieces."""
  if sharding is None:
    return
  try:
    sharding.shard_shape(shape)
  except ValueError as error:
    raise NLAError(f"{name} {list(shape)} cannot be cut as {sharding.spec} over the mesh {dict(sharding.mesh.shape)}: "
                   "choose mesh axes that divide it") from error


def place(array: np.ndarray, sharding: NamedSharding | None, dtype) -> tuple[jax.Array, bool]:
  """One host array on the devices.

  Args:
    array: floats, any strides, possibly memory-mapped.
    sharding: where it goes; None for the default device.
    dtype: on the devices.

  Returns:
    (the array in `dtype`, whether every value in it is finite).
  """
  placed = _copy(array, sharding)
  if placed.dtype == dtype:
    return placed, bool(jax.jit(_all_finite)(placed))
  placed, finite = jax.jit(_cast, static_argnums=1, out_shardings=_outputs(sharding))(placed, np.dtype(dtype))
  return placed, bool(finite)


def stack(read: Callable[[int], np.ndarray], shape: tuple[int, ...], sharding: NamedSharding | None,
          dtype) -> tuple[jax.Array, np.ndarray]:
  """Host arrays of one shape on the devices, stacked along a new leading axis.

  Beside the result there is never more than one of the arrays, on the host or on the devices.

  Args:
    read: function of the index 0..n−1 that gives a host array of shape `shape[1:]`, as `place` takes it.
    shape: of the stack, [n, …].
    sharding: of the stack, which leaves the leading axis whole; None for the default device.
    dtype: on the devices.

  Returns:
    (the stack, [n] bool: whether every value of a layer is finite).
  """
  of_one = None
  if sharding is not None:
    leading, *others = (*sharding.spec, *(None,) * (len(shape) - len(sharding.spec)))
    if leading is not None:
      raise ValueError(f"the sharding {sharding.spec} of a stack cuts its leading axis")
    of_one = NamedSharding(sharding.mesh, P(*others))
  stacked = jnp.zeros(shape, dtype, device=sharding)
  finite = jnp.ones(shape[0], bool, device=None if sharding is None else NamedSharding(sharding.mesh, P()))
  write = jax.jit(_write, donate_argnums=(0, 1), out_shardings=_outputs(sharding))
  for layer in range(shape[0]):
    tensor = _copy(read(layer), of_one)
    stacked, finite = write(stacked, finite, tensor, np.int32(layer))
    del tensor  # before the next one is copied
    jax.block_until_ready(stacked)
  return stacked, np.asarray(finite)


def _outputs(sharding: NamedSharding | None):
  """Shardings of an array and of what is known of its values."""
  return None if sharding is None else (sharding, NamedSharding(sharding.mesh, P()))


def _copy(array: np.ndarray, sharding: NamedSharding | None) -> jax.Array:
  """The array on the devices in its own dtype. A piece that several devices hold is read once."""
  put = functools.partial(jax.device_put, may_alias=False)
  if sharding is None:
    return put(array)
  read, pieces = {}, []
  for device, index in sharding.addressable_devices_indices_map(array.shape).items():
    key = tuple((part.start, part.stop) for part in index)
    pieces.append(put(read.get(key, array[index]), device))
    read.setdefault(key, pieces[-1])
  return jax.make_array_from_single_device_arrays(array.shape, sharding, pieces)


def _all_finite(tensor):
  return jnp.isfinite(tensor.astype(jnp.float32)).all()


def _cast(tensor, dtype):
  tensor = tensor.astype(dtype)
  return tensor, _all_finite(tensor)


def _write(stacked, finite, tensor, layer):
  """`stacked` with `tensor` as its layer. XLA's CPU backend updates bfloat16 in place only as bits."""
  tensor = tensor.astype(stacked.dtype)
  finite = finite.at[layer].set(_all_finite(tensor))
  if stacked.dtype.itemsize != 2:
    return jax.lax.dynamic_update_index_in_dim(stacked, tensor, layer, 0), finite
  bits = lambda x: jax.lax.bitcast_convert_type(x, jnp.uint16)
  updated = jax.lax.dynamic_update_index_in_dim(bits(stacked), bits(tensor), layer, 0)
  return jax.lax.bitcast_convert_type(updated, stacked.dtype), finite
