"""Chips and the slices made of them.

Peak rates are the makers' (Cloud TPU's system architecture pages); the memory is what XLA's compiler lets one program
use, as it says itself when a program is too large for it.
"""
import os
import re
from typing import Any, NamedTuple

import jax

from nla_jax.errors import NLAError
from nla_jax.parallel.mesh import arrange

GIB = 2**30


class Chip(NamedTuple):
  """One chip.

  Attributes:
    memory: bytes of HBM that a program may use.
    flops: dense bfloat16 operations a second (float32 sums).
    memory_rate: bytes of HBM a second.
    link_rate: bytes a second to other chips of the slice, over all of its links together.
    options: what the description of a topology of these chips needs to be asked for.
  """

  memory: float
  flops: float
  memory_rate: float
  link_rate: float
  options: tuple[tuple[str, Any], ...] = ()


CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1228e9, 300e9, (("chip_config_name", "megacore"),)),
    "v5e": Chip(15.75 * GIB, 197e12, 819e9, 200e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2765e9, 600e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1640e9, 448e9),
}
# Slices that can be asked for, small to large; where a plan looks for the next larger one.
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}

_LIBTPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-1",
           "TPU_WORKER_HOSTNAMES": "localhost"}


class Topology(NamedTuple):
  """Devices that need not be here.

  Attributes:
    name: as it was asked for, `v5p:4x4x4` or, of two slices, `v5p:4x4x4*2`.
    chip: each device's.
    devices: descriptions, those of one slice together.
    slices: how many.
  """

  name: str
  chip: Chip
  devices: list
  slices: int

  @property
  def count(self) -> int:
    return len(self.devices)


def describe(name: str) -> Topology:
  """The topology of a name: GENERATION:SHAPE, of several slices GENERATION:SHAPE*N. Raises NLAError."""
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)(?:\*(\d+))?", name)
  if match is None or match[1] not in CHIPS:
    raise NLAError(f"the topology {name!r} is not known: expected GENERATION:SHAPE, such as v5e:4x4, v5p:2x2x2 or, of "
                   f"two slices, v6e:8x8*2; generations are {', '.join(CHIPS)}")
  generation, shape, slices = match[1], match[2], int(match[3] or 1)
  chip = CHIPS[generation]
  options = {**dict(chip.options), **({"num_slices": slices} if slices > 1 else {})}
  _check_libtpu()
  from jax.experimental import topologies

  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=f"{generation}:{shape}", **options)
  except jax.errors.JaxRuntimeError as error:
    raise NLAError(f"there is no topology {name!r} ({str(error).splitlines()[0]}): shapes of {generation} are "
                   f"{', '.join(SLICES[generation])} and larger multiples") from error
  return Topology(name, chip, list(found.devices), slices)


def _check_libtpu() -> None:
  """libtpu is to describe and compile alone: not to look for chips, nor to complain that there are none."""
  for key, value in _LIBTPU.items():
    os.environ.setdefault(key, value)
  try:
    import libtpu  # noqa: F401
  except ImportError as error:
    raise NLAError("plans for TPUs are compiled by libtpu, which is not installed: pip install 'nla_jax[tpu]'; nothing "
                   "needs a TPU") from error


def mesh_of_topology(topology: Topology, data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
  """The mesh (data, fsdp, tensor) over all devices; fsdp = 0 takes what is left. Slices lie along `data`."""
  fsdp = fsdp or max(topology.count // (data * tensor), 1)
  if data * fsdp * tensor != topology.count:
    raise NLAError(f"config.mesh asks for {data} × {fsdp} × {tensor} = {data * fsdp * tensor} devices, {topology.name} "
                   f"has {topology.count}: set --config.mesh.data, .fsdp and .tensor to match")
  return arrange(topology.devices, data, fsdp, tensor)
