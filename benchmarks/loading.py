"""How long a checkpoint takes to load onto a mesh, against reading its files raw, and how much memory it takes.

  python benchmarks/loading.py                 # Qwen2.5-7B's shape on 8 CPU devices: 15 GB of disk, 18 GB of memory
  python benchmarks/loading.py --layers=2      # the same, two blocks of it

Random bfloat16 weights are written, then read raw and loaded in turn, each load in a process of its own (so compiling
is in its time). Before each the files are dropped from the page cache, so that both read from the disk; with
`--cached` both find them in memory. Medians and their ratio are printed and written to
`benchmarks/results/loading.json`, with the peak of resident memory against its bound: the largest tensor and what the
devices hold. The peak is the kernel's own high-water mark less what was resident before, mapped file pages included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from nla_jax.interop.base_models import huggingface, parameter_names, tensor_files
from nla_jax.models.architectures import Architecture
from nla_jax.parallel import sharding
from nla_jax.parallel.mesh import make_mesh

RESULTS = Path(__file__).parent / "results" / "loading.json"


def qwen2(
  n_layers: int,
  d_model: int = 3584,
  d_ff: int = 18944,
  n_heads: int = 28,
  n_kv_heads: int = 4,
  vocab_size: int = 152064,
) -> Architecture:
  """The architecture of Qwen2.5-7B, or of a Qwen2 of another size."""
  return Architecture(
    family="qwen2",
    vocab_size=vocab_size,
    d_model=d_model,
    n_layers=n_layers,
    n_heads=n_heads,
    n_kv_heads=n_kv_heads,
    head_dim=d_model // n_heads,
    d_ff=d_ff,
    rope_theta=1e6,
    rms_eps=1e-6,
    max_positions=32768,
    tied=False,
    attention_bias=True,
  )


def write_checkpoint(
  folder: Path, architecture: Architecture, shard_bytes: int = 1_000_000_000
) -> None:
  """Writes random bfloat16 weights in shards, with their index and config.json.

  Args:
    folder: an existing folder.
    architecture: of the model.
    shard_bytes: upper bound of a shard.
  """
  # 1. Numbers. A tensor repeats a million normals from a place of its own: drawing 7 billion would take minutes, and
  # two layers that were swapped must still differ.
  normals = 0.02 * np.random.default_rng(0).standard_normal(2**20 + 7, np.float32)
  normals = normals.astype(ml_dtypes.bfloat16)

  # 2. Which tensors go into which shard.
  shards, filled = [[]], 0
  for leaf, layer in parameter_names.all_leaves(architecture, headless=False):
    size = 2 * int(np.prod(leaf.file_shape(architecture)))
    if shards[-1] and filled + size > shard_bytes:
      shards.append([])
      filled = 0

    shards[-1].append((leaf.hf.format(layer=layer), leaf.file_shape(architecture)))
    filled += size

  # 3. The files, by the library itself: what is measured must not have written them.
  shard_of, count = {}, 0
  for i, shard in enumerate(shards, start=1):
    arrays = {}
    for name, shape in shard:
      arrays[name] = np.resize(np.roll(normals, 997 * count), shape)
      count += 1

    file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    save_file(arrays, folder / file, metadata={"format": "pt"})
    shard_of |= dict.fromkeys(arrays, file)

  (folder / tensor_files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
  config = huggingface.config_from_architecture(architecture, dtype="bfloat16")
  (folder / "config.json").write_text(json.dumps(config))


def memory(field: str) -> int:
  """The bytes that /proc/self/status gives for `VmRSS`, `VmHWM` (the peak of VmRSS) or `RssAnon`."""
  lines = Path("/proc/self/status").read_text().splitlines()
  return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


class PeakOfAnon(threading.Thread):
  """The largest RssAnon seen, looked up every two milliseconds (the kernel keeps no mark of it)."""

  def __init__(self):
    super().__init__(daemon=True)
    self.peak, self.going = memory("RssAnon"), True

  def run(self):
    while self.going:
      self.peak = max(self.peak, memory("RssAnon"))
      time.sleep(0.002)


def load(
  folder: Path, shape: tuple[int, ...], dtype: str, stop_layer: int | None, compare: bool
) -> dict:
  """Loads once, in this process, onto CPU devices.

  Args:
    folder: the checkpoint.
    shape: of the mesh (data, fsdp, tensor).
    dtype: of the parameters.
    stop_layer: K, 0-based, of the last block to load; None for the whole model.
    compare: compare every piece with the files.

  Returns:
    Seconds, bytes, and whether every piece equals the files (None where they were not compared).
  """
  # 1. The runtime starts before the clock does; compiling is part of the load.
  jax.config.update("jax_num_cpu_devices", int(np.prod(shape)))
  jax.set_mesh(make_mesh(*shape))
  jax.block_until_ready(sharding.shard_params({"embedding": np.zeros((8, 8), np.float32)}))
  architecture = huggingface.architecture_from_config(huggingface.read_config(folder))

  # 2. The load.
  before, anon_before, anon = memory("VmRSS"), memory("RssAnon"), PeakOfAnon()
  anon.start()
  begun, begun_cpu = time.perf_counter(), time.process_time()
  model = huggingface.open_model(folder, architecture, stop_layer)
  params = jax.block_until_ready(model.read(dtype))
  seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
  anon.going = False
  anon.join()

  # 3. What it took. VmHWM is read before the comparison, which maps the files a second time.
  entries = [model.files.entry(name) for name in model.shapes]
  return {
    "seconds": seconds,
    "cpu_seconds": cpu_seconds,
    "peak": memory("VmHWM") - before,
    "peak_anonymous": anon.peak - anon_before,
    "held": sum(
      piece.data.nbytes for leaf in jax.tree.leaves(params) for piece in leaf.addressable_shards
    ),
    "largest": max(entry.stop - entry.start for entry in entries),
    "equal": same_as_files(params, model) if compare else None,
  }


def same_as_files(params: dict, model: huggingface.ModelFiles) -> bool:
  """Whether each device's piece of every parameter outside the blocks, and of the first and last block, is right."""
  architecture, pieces = model.architecture, []
  for leaf in parameter_names.model_leaves(architecture, headless=model.headless):
    pieces += [
      (leaf, None, piece.index, np.asarray(piece.data))
      for piece in params[leaf.ours].addressable_shards
    ]
  for leaf in parameter_names.block_leaves(architecture):
    pieces += [
      (leaf, layer, piece.index[1:], np.asarray(piece.data)[layer])
      for layer in (0, architecture.n_layers - 1)
      for piece in params["layers"][leaf.ours].addressable_shards
    ]

  # Read by the library itself, not by the code under test.
  for leaf, layer, index, found in pieces:
    name = model.name_of(leaf, layer)
    with safe_open(model.files.entry(name).path, "np") as file:
      expected = leaf.from_file(file.get_tensor(name), architecture)[index]
    if not np.array_equal(found, expected.astype(found.dtype)):
      return False
  return True


def load_in_a_process(
  folder: Path,
  *,
  shape: tuple[int, ...] = (1, 4, 2),
  dtype: str = "bfloat16",
  stop_layer: int | None = None,
  compare: bool = False,
) -> dict:
  """Runs `load` in a process that does nothing else: the kernel's marks of memory cover a process's whole life."""
  request = {
    "folder": str(folder),
    "shape": shape,
    "dtype": dtype,
    "stop_layer": stop_layer,
    "compare": compare,
  }

  done = subprocess.run(
    [sys.executable, __file__, "--request", json.dumps(request)],
    capture_output=True,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  if done.returncode:
    raise RuntimeError(done.stderr[-2000:])
  return json.loads(done.stdout.splitlines()[-1])


def read_raw(files: list[Path]) -> float:
  """Seconds to read the files from end to end into one buffer."""
  buffer, begun = bytearray(2**24), time.perf_counter()
  for path in files:
    with open(path, "rb", buffering=0) as file:
      while file.readinto(buffer):
        pass
  return time.perf_counter() - begun


def drop_from_cache(files: list[Path]) -> None:
  """Asks the kernel to forget the files' pages."""
  for path in files:
    with open(path, "rb") as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(layers: int, repeats: int, dtype: str, cached: bool) -> dict:
  """Writes a checkpoint, reads and loads it in turn; returns what goes into the results file."""
  # 1. Reading and loading take turns, so that a slow spell of the disk touches both.
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write_checkpoint(folder, qwen2(layers))
    files = tensor_files.weight_files(folder)
    raw, loads = [], []
    for _ in range(repeats):
      for what in ("raw", "load"):
        if not cached:
          drop_from_cache(files)
        if what == "raw":
          raw.append(read_raw(files))
        else:
          loads.append(load_in_a_process(folder, dtype=dtype))
        print(f"{what}: {raw[-1] if what == 'raw' else loads[-1]['seconds']:.1f} s", flush=True)
    size = sum(path.stat().st_size for path in files)

  # 2. Medians of time, maxima of memory.
  raw_seconds = statistics.median(raw)
  seconds = statistics.median(one["seconds"] for one in loads)
  return {
    "layers": layers,
    "dtype": dtype,
    "cached": cached,
    "repeats": repeats,
    "bytes": size,
    "raw_seconds": raw_seconds,
    "load_seconds": seconds,
    "ratio": seconds / raw_seconds,
    "load_cpu_seconds": statistics.median(one["cpu_seconds"] for one in loads),
    "held": loads[0]["held"],
    "largest": loads[0]["largest"],
    "bound": loads[0]["largest"] + loads[0]["held"],
    "peak": max(one["peak"] for one in loads),
    "peak_anonymous": max(one["peak_anonymous"] for one in loads),
    "cores": os.cpu_count(),
    "jax": jax.__version__,
  }


def table(result: dict) -> str:
  """The results as lines to print."""

  def gigabytes(name: str) -> str:
    return f"{result[name] / 1e9:.2f} GB"

  rows = [
    ("checkpoint", gigabytes("bytes")),
    ("read raw", f"{result['raw_seconds']:.1f} s"),
    ("loaded", f"{result['load_seconds']:.1f} s"),
    ("of all cores", f"{result['load_cpu_seconds']:.1f} s"),
    ("loaded / raw", f"{result['ratio']:.2f}"),
    ("devices hold", gigabytes("held")),
    ("largest tensor", gigabytes("largest")),
    ("bound of memory", gigabytes("bound")),
    ("peak, resident", gigabytes("peak")),
    ("peak, anonymous", gigabytes("peak_anonymous")),
  ]
  return "\n".join(f"{what:18s} {value:>10s}" for what, value in rows)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--layers", type=int, default=28)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
  parser.add_argument("--cached", action="store_true", help="leave the files in the page cache")
  parser.add_argument("--request", help=argparse.SUPPRESS)
  options = parser.parse_args()

  # The process that `load_in_a_process` starts.
  if options.request:
    request = json.loads(options.request)
    folder, shape = Path(request.pop("folder")), tuple(request.pop("shape"))
    print(json.dumps(load(folder, shape, **request)))
    return

  result = measure(options.layers, options.repeats, options.dtype, options.cached)
  RESULTS.parent.mkdir(exist_ok=True)
  RESULTS.write_text(json.dumps(result, indent=2) + "\n")
  print(table(result))


if __name__ == "__main__":
  main()
