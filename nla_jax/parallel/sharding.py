"""Where every array lives on the mesh `(data, fsdp, tensor)`: one table for parameters, one for activations.

Parameters are kept sharded over `fsdp` and `tensor`, and gathered over `fsdp` where a product needs them; rows of a
batch are shared by `data` and `fsdp`. An axis whose size does not divide is left whole on every device (two key heads
on four tensor shards, a batch of one prompt), so every model runs on every mesh.

Without a mesh in context (`jax.set_mesh`) every function here answers None or returns its input: the same model code
runs on one device with nothing to set up.
"""

import math

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

BATCH = ("data", "fsdp")

# Leaf name -> spec of the unstacked leaf; leaves below "layers" get a leading None for the layer axis.
PARAMETERS = {
  "embedding": P("tensor", "fsdp"),
  "unembedding": P("tensor", "fsdp"),
  "query": P("fsdp", "tensor", None),
  "key": P("fsdp", "tensor", None),
  "value": P("fsdp", "tensor", None),
  "output": P("tensor", None, "fsdp"),
  "query_bias": P("tensor", None),
  "key_bias": P("tensor", None),
  "value_bias": P("tensor", None),
  "gate": P("fsdp", "tensor"),
  "up": P("fsdp", "tensor"),
  "down": P("tensor", "fsdp"),
  "matrix": P("fsdp", None),
  "weight": P("fsdp", None),
}

# Of an adapter, A lies as the axes do that its matrix sums over and B as those of its result; the rank stays whole.
_SUMMED = {"query": 1, "key": 1, "value": 1, "output": 2, "gate": 1, "up": 1, "down": 1}
for _name, _axes in _SUMMED.items():
  PARAMETERS[f"{_name}_lora_a"] = P(*PARAMETERS[_name][:_axes], None)
  PARAMETERS[f"{_name}_lora_b"] = P(None, *PARAMETERS[_name][_axes:])

# Logical axis of an activation -> mesh axes.
ACTIVATIONS = {
  None: None,
  "batch": BATCH,
  "heads": "tensor",
  "hidden": "tensor",
  "vocabulary": "tensor",
}


def has_mesh() -> bool:
  """Whether a mesh is set (`jax.set_mesh`)."""
  return not jax.sharding.get_abstract_mesh().empty


def size(axes) -> int:
  """Devices along a mesh axis (or several) of the mesh in context; 1 without one."""
  sizes = jax.sharding.get_abstract_mesh().shape
  names = (axes,) if isinstance(axes, str) else axes or ()
  return math.prod(sizes.get(name, 1) for name in names)


def _fitted(spec, shape) -> P:
  """`spec` without the axes that do not divide `shape`."""

  def fits(axes, dim: int) -> bool:
    return axes and dim > 1 and dim % size(axes) == 0

  # What does not divide is left whole on every device: two key heads on four tensor shards, for example.
  return P(*(axes if fits(axes, dim) else None for axes, dim in zip(spec, shape, strict=True)))


def parameter_specs(params, decode: bool = False):
  """PartitionSpec of each leaf of a parameter (or optimizer) tree, by the leaf's name; unnamed leaves are replicated.

  Args:
    params: arrays or shapes.
    decode: the layout of the token loop, whole over `fsdp`: gathered once instead of at every token.
  """

  def spec(path, leaf):
    names = [getattr(key, "key", None) for key in path]
    stacked = "layers" in names
    name = names[-1] if names else None
    own = PARAMETERS.get(name, (None,) * (len(leaf.shape) - stacked))

    # The layer axis is whole on every device: a scan over layers takes one layer after the other.
    own = (None, *own) if stacked else tuple(own)
    if decode:
      own = (None if axis == "fsdp" else axis for axis in own)
    return _fitted(own, leaf.shape)

  return jax.tree_util.tree_map_with_path(spec, params)


def parameter_shardings(params, decode: bool = False):
  """The sharding of each leaf on the mesh in context; without a mesh, that of the first device."""
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: first, params)
  return jax.tree.map(lambda spec: NamedSharding(mesh, spec), parameter_specs(params, decode))


def activation(axes, shape):
  """PartitionSpec of an array of this shape with these logical axes, or None where no mesh is set."""
  if not has_mesh():
    return None
  return _fitted((ACTIVATIONS[axis] for axis in axes), shape)


def reshard(x, *axes):
  """`x` in the layout of these logical axes; unchanged where no mesh is set."""
  spec = activation(axes, x.shape)
  return x if spec is None else jax.sharding.reshard(x, spec)


def unshard(x):
  """A parameter whole over `fsdp`, as a product needs it; its gradient is scattered back."""
  if not has_mesh():
    return x
  # `tensor` stays: the product itself is cut along it.
  spec = jax.typeof(x).sharding.spec
  return jax.sharding.reshard(x, P(*(None if axis == "fsdp" else axis for axis in spec)))


def is_gathered(x) -> bool:
  """Whether a parameter, or its shape with a sharding, is whole over `fsdp`."""
  if not has_mesh() or size("fsdp") == 1:
    return True
  return "fsdp" not in jax.typeof(x).sharding.spec


def round_up_rows(n: int) -> int:
  """`n` rounded up to a number of rows that the devices can share evenly."""
  shares = size(BATCH)
  return -(-n // shares) * shares


def batch_sharding(shape) -> NamedSharding:
  """The sharding of an array whose leading axis is rows, on the mesh in context."""
  spec = (BATCH, *(None,) * (len(shape) - 1))
  return NamedSharding(jax.sharding.get_mesh(), _fitted(spec, shape))


def local_rows(n: int) -> np.ndarray | slice:
  """The indices of those of a batch's `n` rows that this process's devices hold: what it has to read."""
  if not has_mesh() or jax.process_count() == 1:
    return slice(None)

  # Devices that differ only along `tensor` hold the same rows.
  indices = batch_sharding((n,)).addressable_devices_indices_map((n,)).values()
  return np.unique(np.concatenate([np.arange(n)[index] for index in indices]))


def shard_rows(batch, n: int | None = None):
  """Copies a tree of host arrays, whose leading axis is rows, to the devices, shared by the batch axes.

  Args:
    batch: the whole batch, the same in every process; or, with `n`, only this process's `local_rows(n)` of it.
    n: rows of the whole batch, where only a part is given.
  """
  if not has_mesh():
    return batch
  held = local_rows(n) if n is not None else slice(None)

  def place_rows(x):
    x = np.asarray(x)
    rows = np.arange(len(x)) if isinstance(held, slice) else held
    shape = (len(x) if n is None else n, *x.shape[1:])

    def part(index):
      # `index` counts in the whole batch; `x` may hold only this process's rows of it.
      wanted = np.arange(shape[0])[index[0]]
      return x[np.searchsorted(rows, wanted)]

    return jax.make_array_from_callback(shape, batch_sharding(shape), part)

  return jax.tree.map(place_rows, batch)


def shard_params(params):
  """A parameter tree (host arrays, the same in every process, or device arrays) in its training layout."""
  return jax.tree.map(jax.device_put, params, parameter_shardings(params))


def fetch(x) -> np.ndarray:
  """A whole array as numpy, in every process."""
  if not isinstance(x, jax.Array) or x.is_fully_addressable:
    return np.asarray(x)
  # Where every device holds all of it, nothing has to be sent.
  if x.is_fully_replicated:
    return np.asarray(x.addressable_data(0))
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(x, tiled=True)
