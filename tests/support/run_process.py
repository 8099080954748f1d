"""`nla` on the tiny config in processes of its own, which tests wait for, stop and compare."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Compiling is most of the suite's time, and its programs run a few times. conftest.py sets this for all tests and the
# processes that they start, so both sides of a comparison have it. jaxlib 0.12 does not know the last flag.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if importlib.metadata.version("jaxlib").startswith("0.10."):
  FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"

# A run of a minute that only being told to stop saves. So short a training does not teach the AV the form: lengths give
# RL its gradient.
SHORT = (
  "--config.av.steps=12",
  "--config.ar.steps=12",
  "--config.rl.steps=6",
  "--config.rl.ar_steps=1",
  "--config.rl.group=2",
  "--config.rl.length_cost=0.01",
  "--config.rl.length_target=0",
  "--config.evaluation.rows=16",
  "--config.checkpoint_every=100",
)


def command(stage: str, workdir: os.PathLike, *options: str) -> list[str]:
  config = ROOT / "configs" / "tiny.py"
  return [
    sys.executable,
    "-P",
    "-m",
    "nla_jax.cli.main",
    stage,
    f"--config={config}",
    f"--workdir={workdir}",
    *options,
  ]


def start(
  workdir: Path, *options: str, name: str = "alone", stage: str = "run", **variables: str
) -> subprocess.Popen:
  """`nla run`, or one stage, with further environment variables; its output goes to a file beside the workdir."""
  with open(workdir.parent / f"{workdir.name}.{name}.log", "w") as log:
    return subprocess.Popen(
      command(stage, workdir, *options),
      env={**os.environ, "JAX_PLATFORMS": "cpu", **variables},
      stdout=log,
      stderr=log,
    )


def logs(workdir: Path) -> str:
  """The ends of what was printed: `workdir` may be a log itself."""
  if workdir.is_file():
    return workdir.read_text()[-3000:]
  paths = workdir.parent.glob(f"{workdir.name}.*.log")
  return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in paths)


def wait(until: Callable[[], bool], processes: Sequence[subprocess.Popen], workdir: Path) -> None:
  """Returns when `until()`, looked at often; kills the processes and fails with their logs after ten minutes."""
  deadline = time.time() + 600
  while not until():
    if time.time() > deadline:
      for process in processes:
        process.kill()
      raise AssertionError(f"waited for ten minutes\n{logs(workdir)}")
    time.sleep(0.005)


def reach(ready: Callable[[], bool], processes: Sequence[subprocess.Popen], workdir: Path) -> None:
  """Returns when `ready()`; fails if a process ends before."""

  def until() -> bool:
    assert all(process.poll() is None for process in processes), f"ended too early\n{logs(workdir)}"
    return ready()

  wait(until, processes, workdir)


def finish(processes: Sequence[subprocess.Popen], workdir: Path) -> list[int]:
  """Their exit statuses when all have ended."""
  wait(lambda: all(process.poll() is not None for process in processes), processes, workdir)
  return [process.returncode for process in processes]


def lines(path: Path) -> int:
  return path.read_text().count("\n") if path.exists() else 0


def shards(workdir: Path) -> int:
  """How many shards of activations are whole."""
  return len(list((workdir / "activations" / "store" / "shards").glob("*")))


def curve(folder: Path) -> list[dict]:
  """The lines of a stage's metrics.jsonl without the times."""
  return [
    {key: value for key, value in json.loads(line).items() if not key.startswith("seconds")}
    for line in (folder / "metrics.jsonl").read_text().splitlines()
  ]


def evaluation(workdir: Path) -> dict:
  return json.loads((workdir / "eval" / "metrics.json").read_text())
