"""What the chips are that runs are planned for.

Peak rates are the makers' (Cloud TPU's system architecture pages, NVIDIA's data sheets, without sparsity). The memory
of a TPU is what XLA's compiler lets one program use, as it says itself when a program is too large; that of a GPU is
the device's, of which XLA takes the share that XLA_PYTHON_CLIENT_MEM_FRACTION names.
"""

from typing import NamedTuple

GIB = 2**30


def size(n: float) -> str:
  """Bytes as a person reads them."""
  return f"{n / GIB:.2f} GiB" if n >= GIB / 10 else f"{n / 2**20:.2f} MiB"


class Chip(NamedTuple):
  """One chip.

  Attributes:
    platform: `tpu` or `cuda`.
    memory: bytes that a program may use.
    flops: dense bfloat16 operations a second (float32 sums).
    memory_rate: bytes of its memory a second.
    link_rate: bytes a second that it receives from other chips of its slice or node, over all links together.
    slices: shapes that can be asked for, small to large; where a plan looks for the next larger one.
    target: of a GPU, what XLA's compiler has to know of it; of a TPU, how its cores are used.
  """

  platform: str
  memory: float
  flops: float
  memory_rate: float
  link_rate: float
  slices: tuple[str, ...]
  target: str = ""


def _gpu(
  name: str,
  major: int,
  cores: int,
  cache: int,
  shared: int,
  memory: float,
  clock: float,
  rate: float,
) -> str:
  """XLA's description of an NVIDIA GPU (its `GpuTargetConfigProto`, as text)."""
  limits = (
    "threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 fpus_per_core: 128 "
    "threads_per_core_limit: 2048 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 "
    "block_dim_limit_z: 65535 registers_per_core_limit: 65536 registers_per_block_limit: 65536"
  )
  return (
    f'platform_name: "CUDA" device_description_str: "{name}" dnn_version_info {{ major: 9 minor: 8 }} '
    f"runtime_version {{ major: 13 }} gpu_device_info {{ {limits} core_count: {cores} l2_cache_size: {cache} "
    f"shared_memory_per_core: {shared + 1024} shared_memory_per_block_optin: {shared} clock_rate_ghz: {clock} "
    f"memory_bandwidth: {int(rate)} device_memory_size: {int(memory)} "
    f"cuda_compute_capability {{ major: {major} }} }}"
  )


_CUBES = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_NODES = ("1", "2", "4", "8", "2x8", "4x8", "8x8", "16x8", "32x8")

CHIPS = {
  "v4": Chip("tpu", 30.75 * GIB, 275e12, 1228e9, 300e9, _CUBES, "megacore"),
  "v5e": Chip("tpu", 15.75 * GIB, 197e12, 819e9, 200e9, _SQUARES),
  "v5p": Chip("tpu", 95.74 * GIB, 459e12, 2765e9, 600e9, _CUBES),
  "v6e": Chip("tpu", 31.25 * GIB, 918e12, 1640e9, 448e9, _SQUARES),
  "a100": Chip(
    "cuda",
    79.1 * GIB,
    312e12,
    2039e9,
    300e9,
    _NODES,
    _gpu("NVIDIA A100-SXM4-80GB", 8, 108, 41943040, 166912, 79.1 * GIB, 1.41, 2039e9),
  ),
  "h100": Chip(
    "cuda",
    79.1 * GIB,
    989e12,
    3352e9,
    450e9,
    _NODES,
    _gpu("NVIDIA H100 80GB HBM3", 9, 132, 52428800, 232448, 79.1 * GIB, 1.98, 3352e9),
  ),
  "h200": Chip(
    "cuda",
    139.8 * GIB,
    989e12,
    4800e9,
    450e9,
    _NODES,
    _gpu("NVIDIA H200", 9, 132, 52428800, 232448, 139.8 * GIB, 1.98, 4800e9),
  ),
}
