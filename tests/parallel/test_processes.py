"""Two processes under SLURM's variables are one run: stopped they go on elsewhere, and a death is noticed."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ["--config.av.steps=12", "--config.ar.steps=12", "--config.rl.steps=6", "--config.rl.ar_steps=1",
         "--config.evaluation.rows=16", "--config.checkpoint_every=100", "--config.data.shard_rows=32"]
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
pytestmark = pytest.mark.slow


def start(workdir: pathlib.Path, cache: pathlib.Path, devices: int, *more: str, slurm: dict | None = None):
  """One process of `nla run` on the tiny config; its output goes to a file beside the workdir."""
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices),
         "JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": FAST_COMPILE, **(slurm or {})}
  name = f"{workdir.name}.{(slurm or {}).get('SLURM_PROCID', 'alone')}.log"
  command = [sys.executable, "-P", "-m", "nla_jax.cli", "run", f"--config={ROOT / 'configs' / 'tiny.py'}",
             f"--workdir={workdir}", *SMALL, *more]
  with open(workdir.parent / name, "w") as log:
    return subprocess.Popen(command, env=env, stdout=log, stderr=log)


def start_two(workdir: pathlib.Path, cache: pathlib.Path):
  """Two processes of two devices each, as srun would start them on one node."""
  job = free_job()
  variables = lambda i: {"SLURM_JOB_ID": job, "SLURM_NTASKS": "2", "SLURM_PROCID": str(i),
                         "SLURM_LOCALID": str(i), "SLURM_STEP_NODELIST": "localhost"}
  return [start(workdir, cache, 2, "--distributed", "--heartbeat=10", "--config.mesh.data=2", "--config.mesh.fsdp=2",
                slurm=variables(i)) for i in range(2)]


def free_job() -> str:
  """A job number whose coordinator's port is free: jax takes the port from the number."""
  for job in range(os.getpid(), os.getpid() + 4096):
    with socket.socket() as probe:
      try:
        probe.bind(("", job % 4096 + 61440))
      except OSError:
        continue
    return str(job)
  raise OSError("no port from 61440 on is free")


def finish(processes, workdir: pathlib.Path, seconds: int = 600) -> list[int]:
  """Their exit statuses; fails with their logs where they do not end in time."""
  deadline = time.time() + seconds
  while any(process.poll() is None for process in processes):
    if time.time() > deadline:
      for process in processes:
        process.kill()
      pytest.fail(logs(workdir))
    time.sleep(0.2)
  return [process.returncode for process in processes]


def logs(workdir: pathlib.Path) -> str:
  paths = workdir.parent.glob(f"{workdir.name}.*.log")
  return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in paths)


def when(ready, processes, workdir: pathlib.Path) -> None:
  """Waits for `ready()`."""
  deadline = time.time() + 600
  while not ready():
    assert all(process.poll() is None for process in processes), logs(workdir)
    assert time.time() < deadline, logs(workdir)
    time.sleep(0.02)


def lines(path: pathlib.Path) -> int:
  return path.read_text().count("\n") if path.exists() else 0


def assert_same_run(found: pathlib.Path, expected: pathlib.Path) -> None:
  """The same curves and the same evaluation, to float tolerance."""
  for name, key in (("sft/av", "loss"), ("sft/ar", "loss")):  # RL's draws turn on the last bit of a probability
    curves = [[(line["step"], line[key]) for line in map(json.loads, (folder / name / "metrics.jsonl").open())
               if key in line] for folder in (found, expected)]
    assert len(curves[0]) == 12
    np.testing.assert_allclose(*curves, rtol=1e-4, err_msg=name)
  metrics = [json.loads((folder / "eval" / "metrics.json").read_text()) for folder in (found, expected)]
  assert metrics[0]["av"] == pytest.approx(metrics[1]["av"], rel=1e-2)
  assert metrics[0]["fve"]["gold_text"]["value"] == pytest.approx(metrics[1]["fve"]["gold_text"]["value"], abs=2e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(folder):
  workdir = folder / "alone"
  process = start(workdir, folder / "cache", 1)
  assert finish([process], workdir) == [0], logs(workdir)
  return workdir


def test_two_processes_stopped_by_sigterm_go_on_as_one_on_another_mesh(alone, folder):
  workdir = folder / "stopped"
  processes = start_two(workdir, folder / "cache_two")
  when(lambda: lines(workdir / "sft" / "av" / "metrics.jsonl") >= 2, processes, workdir)
  processes[1].send_signal(signal.SIGTERM)
  assert finish(processes, workdir) == [0, 0], logs(workdir)
  assert "stopped after step" in logs(workdir) and not (workdir / "sft" / "av" / "params").exists()
  rest = start(workdir, folder / "cache_four", 4, "--config.mesh.tensor=2")
  assert finish([rest], workdir) == [0], logs(workdir)
  assert_same_run(workdir, alone)


def test_a_process_that_is_killed_ends_the_other_and_a_restart_goes_on(alone, folder):
  workdir = folder / "killed"
  processes = start_two(workdir, folder / "cache_two")
  when(lambda: lines(workdir / "sft" / "ar" / "metrics.jsonl") >= 2, processes, workdir)
  processes[1].kill()
  began = time.time()
  statuses = finish(processes, workdir, 120)
  assert statuses[0] != 0, f"the other process went on; {time.time() - began:.0f} s"
  processes = start_two(workdir, folder / "cache_two")
  assert finish(processes, workdir) == [0, 0], logs(workdir)
  assert_same_run(workdir, alone)
