"""Load on `nla serve`: many clients at once on loopback, some of which hang up in mid-stream.

  python benchmarks/serving.py --nla=PAIR [--base=MODEL] [--clients=64] [--seconds=60]

Starts the server as a process of its own, warms it up, and lets every client send one request after another. Counts
what was answered, refused with 429 and lost (anything else: no answer, another status, a stream without its end), and
reads the server's resident memory at the start, in the middle and at the end. Exits with 1 where a request was lost.
"""

import argparse
import collections
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PAUSE = 0.2  # seconds that a client waits after a 429
TIMEOUT = 120


def main() -> int:
  """Runs the load and prints one table."""
  options = _options()
  process, port = _started(options)
  try:
    warm_up(port)
    load = Load(port, options.seconds)
    memory = [resident(process.pid)]
    threads = [threading.Thread(target=load.client, args=(i,)) for i in range(options.clients)]
    begun = time.monotonic()
    for thread in threads:
      thread.start()
    for share in (0.5, 1.0):
      time.sleep(max(begun + share * options.seconds - time.monotonic(), 0))
      memory.append(resident(process.pid))
    for thread in threads:
      thread.join()
    status = json.loads(_get(port, "/"))
  finally:
    process.send_signal(signal.SIGTERM)
    code = process.wait(TIMEOUT)
  _print(load, memory, status, code, options)
  return int(bool(load.lost) or status["in_progress"] != 0 or code != 0)


class Load:
  """What the clients send and what came of it.

  Attributes:
    counts: (path, outcome) and how many.
    lost: what was lost, in words.
    waits: seconds of every answer, by path.
  """

  def __init__(self, port: int, seconds: float):
    self.port, self.end = port, time.monotonic() + seconds
    self.counts, self.lost = collections.Counter(), []
    self.waits, self._lock = collections.defaultdict(list), threading.Lock()
    self.width = json.loads(_get(port, "/"))["d_model"]

  def client(self, number: int) -> None:
    """One client: a request after another until the time is over."""
    rng = random.Random(number)
    while time.monotonic() < self.end:
      path, body, leaves = request(rng, self.width)
      begun = time.monotonic()
      try:
        outcome = ask(self.port, path, body, leaves)
      except Exception as error:
        outcome = f"lost ({type(error).__name__}: {error})"
      with self._lock:
        self.counts[path, outcome] += 1
        if outcome == "answered":
          self.waits[path].append(time.monotonic() - begun)
        if outcome.startswith("lost"):
          self.lost.append(f"{path}: {outcome}")
      if outcome == "refused":
        time.sleep(PAUSE)


def request(rng: random.Random, width: int) -> tuple[str, dict, bool]:
  """A request, and whether its client hangs up in mid-stream."""
  vectors = [[rng.gauss(0, 1) for _ in range(width)] for _ in range(rng.choice((1, 1, 3)))]
  heat, stream = rng.choice((0.0, 1.0)), rng.random() < 0.5
  words = " ".join(rng.choice(("snow", "river", "king")) for _ in range(rng.randint(2, 12)))
  kinds = (
    ("/describe", {"activations": vectors, "temperature": heat, "stream": stream}),
    ("/explain", {"text": words, "positions": [-1], "temperature": heat, "stream": stream}),
    ("/read", {"text": words, "positions": "last", "best_of": 2, "stream": stream}),
    ("/score", {"description": words, "activation": vectors[0]}),
    ("/tokenize", {"text": words}),
  )
  path, body = rng.choice(kinds)
  return path, body, body.get("stream", False) and rng.random() < 0.3


def ask(port: int, path: str, body: dict, leaves: bool) -> str:
  """What became of one request: answered, refused, left, or lost."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
  try:
    content = json.dumps(body)
    connection.request("POST", path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status == 429:
      response.read()
      return "refused"
    if response.status != 200:
      return f"lost (status {response.status}: {response.read()[:80]})"
    if leaves:
      response.read1(10)
      response.close()
      return "left"

    found = response.read()
    whole = found.endswith(b"data: [DONE]\n\n") if body.get("stream") else bool(json.loads(found))
    return "answered" if whole else f"lost (a stream without its end: {found[-80:]})"
  finally:
    connection.close()


def warm_up(port: int) -> None:
  """Sends one request of each shape, so that nothing is compiled under load."""
  rng = random.Random(0)
  width = json.loads(_get(port, "/"))["d_model"]
  for n in (1, 4, 16, 64):
    vectors = [[rng.gauss(0, 1) for _ in range(width)] for _ in range(n)]
    for heat in (0.0, 1.0):
      ask(port, "/describe", {"activations": vectors, "temperature": heat, "stream": True}, False)
  for _ in range(40):
    ask(port, *request(rng, width)[:2], False)


def resident(pid: int) -> float:
  """Resident memory of a process, MiB."""
  status = Path(f"/proc/{pid}/status").read_text()
  return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) / 1024


def _get(port: int, path: str) -> bytes:
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
  connection.request("GET", path)
  return connection.getresponse().read()


def _started(options) -> tuple[subprocess.Popen, int]:
  command = [sys.executable, "-m", "nla_jax.cli.main", "serve", f"--nla={options.nla}", "--port=0"]
  command += [f"--base={options.base}"] if options.base else []
  process = subprocess.Popen([*command, *options.flags], stdout=subprocess.PIPE, text=True)
  for line in process.stdout:
    if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
      return process, int(found[1])
  raise SystemExit("the server did not start")


def _print(load: Load, memory: list[float], status: dict, code: int, options) -> None:
  paths = sorted({path for path, _ in load.counts})
  print(f"{options.clients} clients, {options.seconds:g} s, {status['max_concurrent']} places")
  print("| path | answered | 429 | left in mid-stream | lost | median s | longest s |")
  print("|---|---|---|---|---|---|---|")
  for path in paths:
    waits = sorted(load.waits[path]) or [float("nan")]
    counts = [load.counts[path, outcome] for outcome in ("answered", "refused", "left")]
    lost = sum(one.startswith(f"{path}:") for one in load.lost)
    cells = [*counts, lost, f"{waits[len(waits) // 2]:.2f}", f"{waits[-1]:.2f}"]
    print(f"| `{path}` | {' | '.join(map(str, cells))} |")
  print(f"all: {sum(load.counts.values())} requests, {len(load.lost)} lost")
  print("resident memory at start, middle, end: " + ", ".join(f"{one:.0f} MiB" for one in memory))
  print(f"places taken at the end: {status['in_progress']}; exit status after SIGTERM: {code}")
  for one in load.lost[:5]:
    print("lost:", one)


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--nla", required=True)
  parser.add_argument("--base")
  parser.add_argument("--clients", type=int, default=64)
  parser.add_argument("--seconds", type=float, default=60)
  parser.add_argument("flags", nargs="*", help="further flags of nla serve, after --")
  return parser.parse_args()


if __name__ == "__main__":
  sys.exit(main())
