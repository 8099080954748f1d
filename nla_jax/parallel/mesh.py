"""The mesh `(data, fsdp, tensor)` of a run."""

import contextlib
import math

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType

from nla_jax.errors import NLAError
from nla_jax.parallel import sharding

AXES = ("data", "fsdp", "tensor")


def make_mesh(data: int = 1, fsdp: int = 0, tensor: int = 1) -> jax.sharding.Mesh:
  """All devices of all processes (or the first few of one process) as a mesh with Explicit axes.

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
  if count != len(devices) and (jax.process_count() > 1 or count > len(devices)):
    raise NLAError(
      f"config.mesh asks for {data} × {fsdp} × {tensor} = {count} devices, there are {len(devices)} "
      f"({devices[0].device_kind}): set --config.mesh.data, .fsdp and .tensor to match"
    )
  return arrange(devices[:count], *shape)


def arrange(devices: list, data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
  """Devices, here or elsewhere, as a mesh whose inner axes are near each other; slices of a pod lie along `data`.

  Raises:
    NLAError: replicas cannot be shared evenly by the slices.
  """
  slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
  if data % slices:
    raise NLAError(
      f"config.mesh.data={data} is not a multiple of the {slices} slices: only replicas may lie in "
      "several slices, set --config.mesh.data"
    )
  if slices > 1:
    grid = mesh_utils.create_hybrid_device_mesh(
      (data // slices, fsdp, tensor), (slices, 1, 1), devices, allow_split_physical_axes=True
    )
  else:
    grid = mesh_utils.create_device_mesh(
      (data, fsdp, tensor), devices, allow_split_physical_axes=True
    )
  return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * 3)


def check_mesh(architecture, config) -> None:
  """Raises NLAError where heads, hidden units or a batch do not divide on the mesh in context."""
  tensor, shares = sharding.size("tensor"), sharding.size(sharding.BATCH)
  a = architecture
  for what, n in (("query heads", a.n_heads), ("hidden units", a.d_ff)):
    if n % tensor:
      raise NLAError(
        f"config.mesh.tensor={tensor}: the model's {n} {what} cannot be shared evenly by so many devices"
      )
  rl = config.rl
  for key, n in (
    ("av.batch / av.accumulate", config.av.batch // config.av.accumulate),
    ("ar.batch / ar.accumulate", config.ar.batch // config.ar.accumulate),
    (
      "rl.activations × rl.group / (rl.minibatches × rl.av.accumulate)",
      rl.activations * rl.group // (rl.minibatches * rl.av.accumulate),
    ),
    ("rl.activations × rl.group / rl.ar.accumulate", rl.activations * rl.group // rl.ar.accumulate),
  ):
    if n % shares:
      raise NLAError(
        f"config.{key} is {n}: these rows cannot be shared evenly by {shares} devices "
        "(config.mesh.data × config.mesh.fsdp)"
      )


@contextlib.contextmanager
def mesh_of(settings):
  """Sets the mesh of a config's `mesh` section; on a single device none is set."""
  if (
    len(jax.devices()) == 1 and math.prod((settings.data, settings.fsdp or 1, settings.tensor)) == 1
  ):
    yield
    return
  with jax.set_mesh(make_mesh(settings.data, settings.fsdp, settings.tensor)):
    yield
