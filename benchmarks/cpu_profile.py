"""Where the time of one part of `against_torch.py` goes on a CPU, by kind of operation.

  python benchmarks/cpu_profile.py [--part=rollout] [--variant=ours_float32]

Runs our variant twice and then once under jax's profiler, and sorts the time of each operation by the name that the
compiled programs give it. Operations run beside each other on the cores and wait for each other, so kinds are shares of
the operations' time, not of the clock's.
"""

import argparse
import collections
import glob
import gzip
import json
import os
import re
import tempfile
import time
from pathlib import Path

_KEPT = tempfile.TemporaryDirectory()  # until the end
FOLDER = _KEPT.name
os.environ["XLA_FLAGS"] = (
  f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={FOLDER} --xla_dump_hlo_as_text"
)

import against_torch  # noqa: E402 - after the flags
import jax  # noqa: E402

# The first pattern that an operation's name holds is its kind.
KINDS = (
  ("products of the blocks", r"(_project|_finish)/.*dot_general"),
  ("products of attention", r"layers/.*dot_general"),
  ("a block's weights out of the stack", r"dynamic_(index_in_dim|slice)|bitcast_convert_type"),
  ("cache written", r"dynamic_update_slice"),
  ("norms, rotation, gating", r"_project|_finish"),
  ("attention but its products", r"/layers/"),
  ("unembedding", r"(bd,vd->bv|nd,vd->nv|dot_general)"),
)


def kind_of(name: str) -> str:
  return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "everything else")


def names() -> dict[tuple[str, str], str]:
  """{(module, instruction): the name that jax gave it} of every program compiled so far."""
  found = {}
  for path in glob.glob(f"{FOLDER}/*cpu_after_optimizations.txt"):
    text = Path(path).read_text()
    module = re.match(r"HloModule ([^,\s]+)", text).group(1)
    for instruction, name in re.findall(
      r"%([\w.\-]+) = [^\n]*?metadata=\{op_name=\"([^\"]*)\"", text
    ):
      found[module, instruction] = name
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description="Time by kind of operation.")
  parser.add_argument("--part", default="rollout", choices=list(against_torch.PARTS))
  parser.add_argument("--variant", default="ours_float32", choices=["ours_float32", "ours"])
  arguments = parser.parse_args()
  run = against_torch.PARTS[arguments.part](against_torch.Bench()).run[arguments.variant]
  run()
  begun = time.perf_counter()
  run()
  seconds = time.perf_counter() - begun
  with jax.profiler.trace(FOLDER):
    run()
  trace = glob.glob(f"{FOLDER}/**/*.trace.json.gz", recursive=True)[0]
  with gzip.open(trace) as file:
    events = json.load(file)["traceEvents"]
  known, totals = names(), collections.Counter()
  for event in events:
    operation = event.get("args", {}).get("hlo_op")
    if operation and not operation.startswith(("while", "call", "conditional")):
      totals[kind_of(known.get((event["args"]["hlo_module"], operation), ""))] += event["dur"] / 1e6
  whole = sum(totals.values())
  print(
    f"{arguments.part}, {arguments.variant}: {seconds:.2f} s; operations {whole:.2f} s on {os.cpu_count()} cores"
  )
  for kind, taken in totals.most_common():
    print(f"  {taken:7.2f} s  {taken / whole:4.0%}  {kind}")


if __name__ == "__main__":
  main()
