"""Slices and nodes that are not here: their devices, described by the compiler that serves them, and meshes of them."""

import importlib.util
import os
import re
from typing import NamedTuple

import jax

from nla_jax.errors import NLAError, first_line
from nla_jax.parallel.mesh import arrange
from nla_jax.planning.chips import CHIPS, Chip

# libtpu is to describe and compile alone: not to look for chips, nor to complain that there are none.
_LIBTPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}


class Topology(NamedTuple):
  """Devices that need not be here.

  Attributes:
    name: as it was asked for: `v5p:4x4x4`, of two slices `v5p:4x4x4*2`, of four nodes of eight GPUs `h100:4x8`.
    chip: each device's.
    devices: descriptions, those of one slice together.
  """

  name: str
  chip: Chip
  devices: list

  @property
  def count(self) -> int:
    """How many devices there are."""
    return len(self.devices)

  @property
  def slices(self) -> int:
    """How many TPU slices they are of; 1 for GPUs."""
    return len({getattr(device, "slice_index", None) or 0 for device in self.devices})


def describe(name: str) -> Topology:
  """The topology of a name.

  Args:
    name: CHIP:SHAPE, of several TPU slices CHIP:SHAPE*N. The shape of a slice is its chips along each axis; that of
      GPUs is GPUs (`h100:8`) or NODESxGPUS.

  Raises:
    NLAError: no such chip or shape, or the compiler for it is not installed.
  """
  # 1. The name.
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?:\*(\d+))?", name)
  if match is None or match[1] not in CHIPS:
    raise NLAError(
      f"the topology {name!r} is not known: expected CHIP:SHAPE, such as v5e:4x4, v5p:2x2x2, v6e:8x8*2 "
      f"(two slices), h100:8 or h100:4x8 (four nodes of eight); chips are {', '.join(CHIPS)}"
    )
  kind, shape, slices = match[1], match[2], int(match[3] or 1)
  chip = CHIPS[kind]

  # 2. The devices, described by the compiler that serves them.
  _check_compiler(chip)
  from jax.experimental import topologies

  wanted = _tpu(kind, shape, slices) if chip.platform == "tpu" else _gpu(kind, shape)
  try:
    found = topologies.get_topology_desc(platform=chip.platform, **wanted)
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    raise NLAError(
      f"there is no topology {name!r} ({first_line(error)}): shapes of {kind} are "
      f"{', '.join(chip.slices)} and larger multiples"
    ) from error
  return Topology(name, chip, list(found.devices))


def _tpu(kind: str, shape: str, slices: int) -> dict:
  """What libtpu is asked for."""
  wanted = {"topology_name": f"{kind}:{shape}"}
  if target := CHIPS[kind].target:
    wanted["chip_config_name"] = target
  if slices > 1:
    wanted["num_slices"] = slices

  # A single chip is part of a larger host.
  if set(shape.split("x")) == {"1"}:
    wanted["chips_per_host_bounds"] = [1, 1, 1]
  return wanted


def _gpu(kind: str, shape: str) -> dict:
  """What XLA's GPU compiler is asked for."""
  nodes, _, gpus = shape.rpartition("x")
  topology = f"1x{nodes or 1}x{gpus}"
  return {"topology_name": kind, "target_config": CHIPS[kind].target, "topology": topology}


def _check_compiler(chip: Chip) -> None:
  """Raises NLAError where the compiler for a chip is not installed."""
  if chip.platform == "tpu":
    for key, value in _LIBTPU.items():
      os.environ.setdefault(key, value)
    package, extra, maker = "libtpu", "tpu", "libtpu"
  else:
    package, extra, maker = "jax_plugins", "gpu", "jax's CUDA plugin"
    jax.devices()  # finds the plugins

  try:
    found = importlib.util.find_spec(package) is not None
  except ValueError:  # a module set to None
    found = False
  if not found:
    raise NLAError(
      f"plans for these chips are compiled by {maker}, which is not installed: pip install "
      f"'nla_jax[{extra}]'; no accelerator is needed"
    )


def mesh_of_topology(topology: Topology, data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
  """The mesh (data, fsdp, tensor) over all devices; fsdp = 0 takes what is left. Slices lie along `data`."""
  fsdp = fsdp or max(topology.count // (data * tensor), 1)
  if data * fsdp * tensor != topology.count:
    raise NLAError(
      f"config.mesh asks for {data} × {fsdp} × {tensor} = {data * fsdp * tensor} devices, {topology.name} "
      f"has {topology.count}: set --config.mesh.data, .fsdp and .tensor to match"
    )
  return arrange(topology.devices, data, fsdp, tensor)
