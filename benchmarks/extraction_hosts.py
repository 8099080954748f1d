"""Extraction by several processes: the same rows, how much memory each takes, and how fast a store is written.

  python benchmarks/extraction_hosts.py                   # 1,000,000 rows of width 576: 2.3 GB of disk a store
  python benchmarks/extraction_hosts.py --rows=60000      # the same in a few minutes

The target has SmolLM2-135M's widths and two random blocks, of which the first is read: what is measured is reading,
tokenising and writing, not the model. `nla extract` runs with each number of processes in turn, each a process of its
own on this machine that finds the others by `--coordinator`; once more with half the rows, so that what memory grows
with the corpus shows. The rows of all stores are compared by their checksums, and by number where these differ.

The store is then measured alone: shards of the same rows are written through `StoreWriter` and as raw files, in turn,
each forced to the disk before the clock stops. Everything goes to `benchmarks/results/extraction_hosts.json`.
"""

import argparse
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import init_params

RESULTS = Path(__file__).parent / "results" / "extraction_hosts.json"
EACH, TOKENS, WIDTH, SHARD = 100, 128, 576, 8192
CONFIG = """
from nla_jax.config import default_config
def get_config():
  c = default_config()
  c.update(model={model!r}, corpus={corpus!r}, layer=0, compute="float32")
  c.data.update(max_tokens={tokens}, positions_per_document={each}, position_minimum=8, next_tokens=0,
                batch_tokens=8192, shard_rows={shard}, chunk_rows=128)
  c.teacher.provider = "file"
  c.teacher.path = {corpus!r}
  return c
"""


def write_model(folder: Path) -> None:
  """Two random blocks of SmolLM2-135M's widths with a byte tokenizer, as a Hugging Face directory."""
  tokenizer = byte_tokenizer()
  architecture = Architecture(
    family="llama",
    vocab_size=len(tokenizer),
    d_model=WIDTH,
    n_layers=2,
    n_heads=9,
    n_kv_heads=3,
    head_dim=64,
    d_ff=1536,
    rope_theta=10000.0,
    rms_eps=1e-5,
    max_positions=2048,
    tied=True,
  )
  folder.mkdir()
  params = jax.tree.map(np.asarray, init_params(architecture, jax.random.key(0)))
  tensor_files.write_tensors(folder, huggingface.tensors_of(params, architecture), dtype="float32")
  config = huggingface.config_from_architecture(architecture)
  (folder / "config.json").write_text(json.dumps(config))
  tokenizer.save_pretrained(folder)


def write_corpus(path: Path, documents: int) -> None:
  """Documents of letters that differ, each longer than what is read of it."""
  random = np.random.default_rng(0)
  with path.open("w") as file:
    for i in range(documents):
      letters = random.integers(97, 123, TOKENS + 8, dtype=np.uint8).tobytes().decode()
      file.write(json.dumps({"id": str(i), "text": letters}) + "\n")


def extract(config: Path, workdir: Path, processes: int) -> dict:
  """Runs `nla extract`; gives its seconds and each process's peak of resident memory in MB."""
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]

  command = [sys.executable, "-P", "-m", "nla_jax.cli.main", "extract"]
  command += [f"--config={config}", f"--workdir={workdir}"]
  begun, running = time.time(), []
  for i in range(processes):
    others = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process={i}"]
    log = workdir.with_suffix(f".{i}.log").open("w")
    arguments = command + (others if processes > 1 else [])
    # Patient: on a crowded machine a process that waits for its turn is silent for long.
    arguments += ["--heartbeat=300"] if processes > 1 else []
    running.append(subprocess.Popen(arguments, stdout=log, stderr=log))

  peaks = []
  for process in running:
    _, status, used = os.wait4(process.pid, 0)
    peaks.append(round(used.ru_maxrss / 1024))
    if status:
      raise SystemExit(f"extract ended with {status}: see {workdir.with_suffix('.0.log')}")
  return {"seconds": round(time.time() - begun, 1), "peak_mb": peaks}


def compare(one: Path, other: Path) -> dict:
  """Whether two stores hold the same rows, and the largest difference where they do not."""
  a, b = (Store(str(path / "activations" / "store")) for path in (one, other))
  same = a.manifest["content_hash"] == b.manifest["content_hash"]
  exact = all(
    np.array_equal(a.read(name, slice(None)), b.read(name, slice(None)))
    for name in ("document", "position")
  )
  largest = 0.0
  if not same:
    for start in range(0, len(a), SHARD):
      rows = slice(start, start + SHARD)
      difference = np.abs(a.read("activations", rows) - b.read("activations", rows))
      largest = max(largest, float(difference.max()))
  return {"same_checksums": same, "same_rows_chosen": exact, "largest_difference": largest}


def write_rates(folder: Path, shards: int, repeats: int) -> dict:
  """MB a second of a store's shards and of raw files with the same rows, in turn."""
  rows = np.random.default_rng(0).normal(size=(SHARD, WIDTH)).astype(np.float32)
  found = {"store": [], "raw": []}
  for _ in range(repeats):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    # 1. As an extraction writes: a shard, its checksum, its record.
    writer = StoreWriter(
      str(folder / "store"), {"activations": ((WIDTH,), "float32")}, SHARD * shards, SHARD, 128
    )
    begun = time.perf_counter()
    for shard in range(shards):
      writer.write_shard(shard, {"activations": rows})
    os.sync()
    found["store"].append(rows.nbytes * shards / 1e6 / (time.perf_counter() - begun))

    # 2. The same bytes as they are.
    begun = time.perf_counter()
    for shard in range(shards):
      with (folder / f"{shard}.raw").open("wb") as file:
        file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())
    os.sync()
    found["raw"].append(rows.nbytes * shards / 1e6 / (time.perf_counter() - begun))

  medians = {name: statistics.median(rates) for name, rates in found.items()}
  ratios = [a / b for a, b in zip(found["store"], found["raw"], strict=True)]
  return {"mb_a_second": medians, "share_of_raw": statistics.median(ratios), "shares": ratios}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--processes", default="2,3")
  parser.add_argument("--shards", type=int, default=12, help="of the store that is written alone")
  options = parser.parse_args()

  with tempfile.TemporaryDirectory(prefix="extraction") as scratch:
    found = measure(Path(scratch), options)
  RESULTS.parent.mkdir(exist_ok=True)
  RESULTS.write_text(json.dumps(found, indent=1) + "\n")
  print(json.dumps(found, indent=1))


def _extracted(folder: Path, rows: int, processes: int, part: int) -> dict:
  """Extracts one part of the rows in so many processes, with its rates."""
  corpus, config = folder / f"corpus{part}.jsonl", folder / f"config{part}.py"
  if not corpus.exists():
    write_corpus(corpus, rows // EACH // part)
  names = {"model": str(folder / "model"), "corpus": str(corpus), "tokens": TOKENS}
  config.write_text(CONFIG.format(**names, each=EACH, shard=SHARD))

  run = extract(config, folder / f"run{processes}_{part}", processes)
  rows //= part
  rates = {"rows_a_second": round(rows / run["seconds"])}
  rates["mb_a_second"] = round(rows * WIDTH * 4 / 1e6 / run["seconds"], 1)
  found = {"processes": processes, "rows": rows, **run, **rates}
  print(json.dumps(found), flush=True)
  return found


def measure(folder: Path, options: argparse.Namespace) -> dict:
  """All numbers, in the order in which they are taken."""
  counts = [int(count) for count in options.processes.split(",")]
  write_model(folder / "model")
  found: dict = {"rows": options.rows, "width": WIDTH, "load_before": os.getloadavg()[0]}
  found["writing"] = write_rates(folder / "alone", options.shards, 3)
  print(json.dumps(found), flush=True)

  # 1. The whole corpus by each number of processes, and whether that changes a row.
  found["extraction"] = [_extracted(folder, options.rows, count, 1) for count in counts]
  found["compared"] = {
    f"{a} and {b}": compare(folder / f"run{a}_1", folder / f"run{b}_1")
    for a, b in itertools.pairwise(counts)
  }
  print(json.dumps(found["compared"]), flush=True)

  # 2. Half of it by the first number: what memory grows by with the corpus.
  found["extraction"].append(_extracted(folder, options.rows, counts[0], 2))
  found["load_after"] = os.getloadavg()[0]
  return found


if __name__ == "__main__":
  main()
