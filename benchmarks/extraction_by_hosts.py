"""Extraction by hosts: the same rows by any number of processes, each one's memory, and its speed against the disk.

  python benchmarks/extraction_by_hosts.py                  # 1,000,000 rows of width 576: 2.3 GB of disk a store
  python benchmarks/extraction_by_hosts.py --rows=20000 --shard=1024 --megabytes=64     # the same in minutes

The target is one random block, narrow but for its width of 576, so that reading, tokenising and writing are measured
and not a model. Documents have 64 tokens and give ten rows each. `nla extract` runs with each number of processes, each
a process of its own on this machine that finds the others by `--coordinator`; with the first number also over a quarter
and half of the corpus, which shows what memory grows by. A store's digest is its manifest's, of all shards' checksums
and of the documents.

In turn with the extractions the disk is measured: raw files of as many bytes as a shard has, each forced to the disk.
The shards' rate is taken between the first and the last one's record; the whole command's has start, compilation and
tokenising in it. At last shards are written through `StoreWriter` alone and raw, in turn. Everything goes to
`benchmarks/results/extraction_by_hosts.json`, also what there is by then of a run that is stopped.
"""

import argparse
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

from nla_jax.data.store.writer import StoreWriter
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import init_params

RESULTS = Path(__file__).parent / "results" / "extraction_by_hosts.json"
EACH, TOKENS, WIDTH = 10, 64, 576
CONFIG = """
from nla_jax.config import default_config
def get_config():
  c = default_config()
  c.update(model={model!r}, corpus={corpus!r}, layer=0, compute="float32")
  c.data.update(max_tokens={tokens}, positions_per_document={each}, position_minimum=8, next_tokens=0,
                batch_tokens=8192, shard_rows={shard}, chunk_rows=128)
  # Of what is never trained here, so that it can be shared by two and by three.
  c.av.batch = c.ar.batch = c.rl.activations = c.evaluation.batch = 12
  c.teacher.provider = "file"
  c.teacher.path = {corpus!r}
  return c
"""


def write_model(folder: Path) -> None:
  """One random block with a byte tokenizer, as a Hugging Face directory."""
  tokenizer = byte_tokenizer()
  architecture = Architecture(
    family="llama",
    vocab_size=len(tokenizer),
    d_model=WIDTH,
    n_layers=1,
    n_heads=6,
    n_kv_heads=6,
    head_dim=16,
    d_ff=96,
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
  """Documents of letters that differ, each longer than what is read of it; a shorter corpus is how a longer begins."""
  random = np.random.default_rng(0)
  with path.open("w") as file:
    for i in range(documents):
      letters = random.integers(97, 123, TOKENS + 8, dtype=np.uint8).tobytes().decode()
      file.write(json.dumps({"id": str(i), "text": letters}) + "\n")


def extract(config: Path, workdir: Path, processes: int) -> dict:
  """Runs `nla extract`; gives its seconds, its store's digest and each process's peak of resident memory in MB."""
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
    arguments += ["--heartbeat=600"] if processes > 1 else []
    running.append(subprocess.Popen(arguments, stdout=log, stderr=log))

  peaks = []
  for process in running:
    _, status, used = os.wait4(process.pid, 0)
    peaks.append(round(used.ru_maxrss / 1024))
    if status:
      raise SystemExit(f"extract ended with {status}: see {workdir.with_suffix('.0.log')}")
  return {"seconds": round(time.time() - begun, 1), "peak_mb": peaks, **_rates(workdir, begun)}


def _rates(workdir: Path, begun: float) -> dict:
  """Rows and bytes a second of a store that was written since `begun`, and its digest."""
  store = workdir / "activations" / "store"
  manifest = json.loads((store / "manifest.json").read_text())
  rows = manifest["n_rows"]
  size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
  records = sorted(path.stat().st_mtime for path in (store / "shards").iterdir())

  # From the first shard on, whose own time has compilation in it.
  shards = (len(records) - 1) / len(records) / max(records[-1] - records[0], 1e-9)
  whole = 1 / (time.time() - begun)
  return {
    "digest": manifest["content_hash"],
    "store_mb": round(size / 1e6),
    "rows_a_second": {"shards": round(rows * shards), "whole": round(rows * whole)},
    "mb_a_second": {
      "shards": round(size / 1e6 * shards, 1),
      "whole": round(size / 1e6 * whole, 1),
    },
  }


def raw_rate(folder: Path, shard: int, megabytes: int) -> float:
  """MB a second of raw files, each as large as a shard of so many rows and forced to the disk."""
  folder.mkdir()
  rows = np.random.default_rng(0).normal(size=(shard, WIDTH)).astype(np.float32)
  count = max(round(megabytes * 1e6 / rows.nbytes), 1)
  os.sync()
  begun = time.perf_counter()
  for i in range(count):
    with (folder / f"{i}.raw").open("wb") as file:
      file.write(rows.data)
      file.flush()
      os.fsync(file.fileno())
  found = rows.nbytes * count / 1e6 / (time.perf_counter() - begun)
  shutil.rmtree(folder)
  return found


def writer_rate(folder: Path, shard: int, megabytes: int) -> float:
  """MB a second of shards that are written through `StoreWriter`: rows, checksum, record."""
  rows = np.random.default_rng(0).normal(size=(shard, WIDTH)).astype(np.float32)
  count = max(round(megabytes * 1e6 / rows.nbytes), 1)
  arrays = {"activations": ((WIDTH,), "float32")}
  writer = StoreWriter(str(folder), arrays, shard * count, shard, 128)
  os.sync()
  begun = time.perf_counter()
  for i in range(count):
    writer.write_shard(i, {"activations": rows})
  os.sync()
  found = rows.nbytes * count / 1e6 / (time.perf_counter() - begun)
  shutil.rmtree(folder)
  return found


def measure(folder: Path, options: argparse.Namespace) -> dict:
  """Measures everything, and writes down what there is after each step."""
  write_model(folder / "model")
  counts = [int(count) for count in options.processes.split(",")]
  found: dict = {"rows": options.rows, "width": WIDTH, "extraction": [], "writing": []}

  def note() -> None:
    found["load"] = os.getloadavg()[0]
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")

  # 1. All of the corpus by each number of processes, then parts of it by the first.
  cases = [(1, count) for count in counts] + [(part, counts[0]) for part in (4, 2)]
  for part, count in cases:
    corpus, config = folder / f"corpus{part}.jsonl", folder / f"config{part}.py"
    if not corpus.exists():
      write_corpus(corpus, options.rows // EACH // part)
      names = {"model": str(folder / "model"), "corpus": str(corpus)}
      config.write_text(CONFIG.format(**names, tokens=TOKENS, each=EACH, shard=options.shard))

    raw = raw_rate(folder / "raw", options.shard, options.megabytes)
    workdir = folder / f"run{part}_{count}"
    one = {"part": 1 / part, "processes": count, **extract(config, workdir, count)}
    raw = (raw + raw_rate(folder / "raw", options.shard, options.megabytes)) / 2
    one["raw_mb_a_second"] = round(raw, 1)
    one["share_of_raw"] = {name: round(rate / raw, 3) for name, rate in one["mb_a_second"].items()}
    found["extraction"].append(one)
    print(json.dumps(one), flush=True)
    note()
    shutil.rmtree(workdir)

  # 2. The same rows, whoever extracted them.
  whole = {one["digest"] for one in found["extraction"] if one["part"] == 1}
  found["same_rows"] = len(whole) == 1
  print(f"same rows by {' and '.join(map(str, counts))} processes: {found['same_rows']}")

  # 3. The writer alone.
  for _ in range(3):
    raw = raw_rate(folder / "raw", options.shard, options.megabytes)
    store = writer_rate(folder / "alone", options.shard, options.megabytes)
    found["writing"].append({"raw": round(raw, 1), "store": round(store, 1)})
  shares = [one["store"] / one["raw"] for one in found["writing"]]
  found["writer_share_of_raw"] = round(statistics.median(shares), 3)
  print(f"StoreWriter's share of the raw rate: {found['writer_share_of_raw']}", flush=True)
  note()
  return found


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--shard", type=int, default=8192, help="rows of a shard")
  parser.add_argument("--processes", default="2,3")
  parser.add_argument("--megabytes", type=int, default=256, help="of a measurement of the disk")
  parser.add_argument("--folder", help="with room for a store; a temporary one without")
  options = parser.parse_args()
  RESULTS.parent.mkdir(exist_ok=True)
  with tempfile.TemporaryDirectory(dir=options.folder) as folder:
    measure(Path(folder), options)


if __name__ == "__main__":
  main()
