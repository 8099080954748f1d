"""The mesh `(data, fsdp, tensor)` of a run."""

import contextlib
import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType

from nla_jax.errors import NLAError
from nla_jax.parallel import sharding

AXES = ("data", "fsdp", "tensor")


def make_mesh(data: int = 1, fsdp: int = 0, tensor: int = 1) -> jax.sharding.Mesh:
  """A mesh with Explicit axes over all devices of all processes, or over the first few of a single process.

  Args:
    data: replicas of the parameters; rows of a batch are shared by `data` and `fsdp`.
    fsdp: shards of every parameter; 0 takes what `data` and `tensor` leave.
    tensor: shards of heads, hidden units and vocabulary.

  Raises:
    NLAError: the product is not the number of devices.
  """
  devices = jax.devices()
  if min(data, tensor) < 1 or fsdp < 0:
    raise NLAError(
      f"config.mesh is data={data}, fsdp={fsdp}, tensor={tensor}: sizes are at least 1 (fsdp=0 takes "
      "what is left)"
    )

  if not fsdp:
    fsdp = max(len(devices) // (data * tensor), 1)
  shape = (data, fsdp, tensor)
  count = math.prod(shape)
  # A single process may leave devices out, as a test does; several would not agree on which.
  if count != len(devices) and (jax.process_count() > 1 or count > len(devices)):
    raise NLAError(
      f"config.mesh asks for {data} × {fsdp} × {tensor} = {count} devices, there are {len(devices)} "
      f"({devices[0].device_kind}): set --config.mesh.data, .fsdp and .tensor to match"
    )
  return arrange(devices[:count], *shape)


def arrange(devices: list, data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
  """A mesh over given devices, which need not be here (a plan's are not).

  Neighbours on an inner axis are near each other. Slices of a pod, between which the network is slow, lie along `data`.

  Raises:
    NLAError: replicas cannot be shared evenly by the slices.
  """
  # Devices that are not in slices (CPUs, GPUs) have no slice_index, or None.
  slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
  if data % slices:
    raise NLAError(
      f"config.mesh.data={data} is not a multiple of the {slices} slices: only replicas may lie in "
      "several slices, set --config.mesh.data"
    )

  # Splitting physical axes lets any shape be laid on a torus; some links are then shared by two axes.
  if slices > 1:
    inside, between = (data // slices, fsdp, tensor), (slices, 1, 1)
    grid = mesh_utils.create_hybrid_device_mesh(
      inside, between, devices, allow_split_physical_axes=True
    )
  else:
    shape = (data, fsdp, tensor)
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * 3)


def check_mesh(architecture, config) -> None:
  """Checks that heads, hidden units and batches divide on the mesh in context.

  Args:
    architecture: of the base model.
    config: the whole config.

  Raises:
    NLAError: naming the number that does not divide, and by what.
  """
  tensor = sharding.size("tensor")
  for what, n in (("query heads", architecture.n_heads), ("hidden units", architecture.d_ff)):
    if n % tensor:
      raise NLAError(
        f"config.mesh.tensor={tensor}: the model's {n} {what} cannot be shared evenly by so many devices"
      )

  shares = sharding.size(sharding.BATCH)
  for key, n in _rows_at_once(config).items():
    if n % shares:
      raise NLAError(
        f"config.{key} is {n}: these rows cannot be shared evenly by {shares} devices "
        "(config.mesh.data × config.mesh.fsdp)"
      )


def _rows_at_once(config) -> dict[str, int]:
  """How many rows each gradient is computed from at once, by the keys of the config that say so."""
  av, ar, rl = config.av, config.ar, config.rl
  samples = rl.activations * rl.group  # of a step
  return {
    "av.batch / av.accumulate": av.batch // av.accumulate,
    "ar.batch / ar.accumulate": ar.batch // ar.accumulate,
    "rl.activations × rl.group / (rl.minibatches × rl.av.accumulate)": samples
    // (rl.minibatches * rl.av.accumulate),
    "rl.activations × rl.group / rl.ar.accumulate": samples // rl.ar.accumulate,
  }


@contextlib.contextmanager
def mesh_of(settings):
  """Sets the mesh of a config's `mesh` section; on a single device none is set."""
  asked_for = math.prod((settings.data, settings.fsdp or 1, settings.tensor))
  # Without a mesh the model's code is that of one device: no sharding is written into its programs.
  if len(jax.devices()) == 1 and asked_for == 1:
    yield
    return

  with jax.set_mesh(make_mesh(settings.data, settings.fsdp, settings.tensor)):
    yield


def own_shape(settings) -> tuple[int, int, int] | None:
  """Returns (data, fsdp, tensor) over this process's devices alone, with the shares of a config's `mesh` section.

  What the section leaves to be taken (fsdp=0) is this process's. None where the parameters lie across processes.
  """
  devices = jax.local_device_count()
  fsdp = settings.fsdp or max(devices // settings.tensor, 1)
  replicas, rest = divmod(devices, fsdp * settings.tensor)
  return (replicas, fsdp, settings.tensor) if replicas and not rest else None


@contextlib.contextmanager
def own_mesh_of(settings):
  """Sets the mesh of `own_shape`, which must not be None; on a single device none is set, whatever was before."""
  shape = own_shape(settings)
  mesh = jax.sharding.Mesh(np.empty((), object), ())
  if math.prod(shape) > 1:
    mesh = arrange(jax.local_devices(), *shape)
  with jax.set_mesh(mesh):
    yield
