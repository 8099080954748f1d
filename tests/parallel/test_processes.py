"""Two processes under SLURM are one run: stopped or killed, it continues elsewhere with the same numbers."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from support.run_process import SHORT, curve, evaluation, finish, lines, logs, reach, shards, start

SMALL = [
  *SHORT,
  "--config.rl.ar_teacher=0.25",
  "--config.data.shard_rows=4",
  "--config.data.chunk_rows=4",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def begin(folder):
  """A function (workdir, devices, *options, name, **variables): one process with so many devices."""

  def start_one(workdir: Path, devices: int, *options: str, processes: int = 1, **variables: str):
    cache = folder / f"compiled for {processes} × {devices}"
    return start(
      workdir,
      *SMALL,
      *options,
      JAX_NUM_CPU_DEVICES=str(devices),
      JAX_COMPILATION_CACHE_DIR=str(cache),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
      **variables,
    )

  return start_one


@pytest.fixture(scope="module")
def begin_two(begin):
  """A function (workdir, data, fsdp, tensor): two processes of two devices each, as srun starts them on one node."""

  def start_two(
    workdir: Path, data: int, fsdp: int, tensor: int, *options: str, devices: int = 2, **variables
  ):
    job = _free_job()
    mesh = [
      f"--config.mesh.{axis}={size}"
      for axis, size in (("data", data), ("fsdp", fsdp), ("tensor", tensor))
    ]
    return [
      begin(
        workdir,
        devices,
        "--distributed",
        "--heartbeat=10",
        *mesh,
        *options,
        processes=2,
        name=str(i),
        SLURM_JOB_ID=job,
        SLURM_NTASKS="2",
        SLURM_PROCID=str(i),
        SLURM_LOCALID=str(i),
        SLURM_STEP_NODELIST="localhost",
        **variables,
      )
      for i in range(2)
    ]

  return start_two


def _free_job() -> str:
  """A job number whose coordinator's port is free: jax takes the port from the number."""
  for job in range(os.getpid(), os.getpid() + 4096):
    with socket.socket() as probe:
      try:
        probe.bind(("", job % 4096 + 61440))
      except OSError:
        continue
    return str(job)
  raise OSError("no port from 61440 on is free")


@pytest.fixture(scope="module")
def alone(begin, folder):
  """The same run undisturbed, in one process with one device."""
  workdir = folder / "alone"
  assert finish([begin(workdir, 1)], workdir) == [0], logs(workdir)
  return workdir


@pytest.fixture(scope="module")
def disturbed(begin, begin_two, folder):
  """A run of two processes that SIGTERM to one of them stopped in extraction, in the AV's SFT and in RL, and SIGKILL in
  the AR's SFT. It went on each time on another mesh, and after the last as one process."""
  workdir = folder / "disturbed"
  metrics = lambda stage: lines(workdir / stage / "metrics.jsonl")
  for mesh, stage, ready, number in (
    ((2, 2, 1), "extract", lambda: shards(workdir) >= 1, signal.SIGTERM),
    ((1, 2, 2), "sft ar", lambda: metrics("sft/ar") >= 2, signal.SIGKILL),
    ((2, 2, 1), "sft av", lambda: metrics("sft/av") >= 2, signal.SIGTERM),
    ((1, 2, 2), "rl", lambda: metrics("rl") >= 1, signal.SIGTERM),
  ):
    processes = begin_two(workdir, *mesh)
    reach(ready, processes, workdir)
    processes[1].send_signal(number)
    statuses = finish(processes, workdir)
    if number == signal.SIGKILL:
      assert statuses[0] != 0, "the other process went on"
    else:
      assert statuses == [75, 75] and f"{stage} stopped" in logs(workdir), logs(workdir)
  rest = begin(workdir, 4, "--config.mesh.data=2", "--config.mesh.fsdp=1", "--config.mesh.tensor=2")
  assert finish([rest], workdir) == [0], logs(workdir)
  return workdir


def _assert_equal(found: dict, expected: dict) -> None:
  assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)  # the sampler's gap is rounding alone


@pytest.mark.long
@pytest.mark.parametrize("name", ["av", "ar"])
def test_a_run_disturbed_in_every_stage_gives_the_sft_curves_of_an_undisturbed_one(
  disturbed, alone, name
):
  found, expected = curve(disturbed / "sft" / name), curve(alone / "sft" / name)
  assert [line["step"] for line in found] == [*range(13)]
  for one, other in zip(found, expected, strict=True):
    _assert_equal(one, other)


@pytest.fixture(scope="module")
def alone_from_rl(disturbed, begin, folder):
  """The disturbed run's RL and what follows once more, undisturbed in one process with one device. (From SFTs of
  different meshes, equal to 1e-4, a draw now and then falls to the other side of a boundary, and the words with it.)"""
  workdir = folder / "alone from rl"
  shutil.copytree(
    disturbed, workdir, ignore=shutil.ignore_patterns("rl", "eval", "hf", "report.html")
  )
  assert finish([begin(workdir, 1)], workdir) == [0], logs(workdir)
  return workdir


@pytest.mark.long
def test_its_rl_curve_is_that_of_an_undisturbed_one(disturbed, alone_from_rl):
  found, expected = curve(disturbed / "rl"), curve(alone_from_rl / "rl")
  assert [line["step"] for line in found] == [*range(6)]
  for one, other in zip(found, expected, strict=True):
    _assert_equal(one, other)
    assert one["ar_gradient_norm"] > 0
  assert found[-1]["av_gradient_norm"] > 0


@pytest.mark.long
def test_its_evaluation_is_that_of_an_undisturbed_one(disturbed, alone_from_rl):
  found, expected = evaluation(disturbed), evaluation(alone_from_rl)
  assert found["av"] == pytest.approx(expected["av"], rel=1e-2)
  assert found["fve"]["teacher_text"]["value"] == pytest.approx(
    expected["fve"]["teacher_text"]["value"], abs=2e-2
  )


@pytest.mark.parametrize("mesh", [(1, 2, 1), (2, 1, 1)])
def test_each_of_two_processes_writes_shards_as_one_process_does(alone, begin_two, folder, mesh):
  """Alone where its devices hold the target: then to the byte; else together."""
  workdir = folder / f"extracted {mesh}"
  processes = begin_two(workdir, *mesh, devices=1, stage="extract")
  assert finish(processes, workdir) == [0, 0], logs(workdir)
  stores = [where / "activations" / "store" for where in (workdir, alone)]
  found, expected = (json.loads((store / "manifest.json").read_text()) for store in stores)
  if mesh == (2, 1, 1):
    assert found == expected
  # Shared by fsdp, each forward is of both processes, and rounding may differ.
  for one, other in zip(found["shards"], expected["shards"], strict=True):
    for name in ("document", "position"):
      assert one["sha256"][name] == other["sha256"][name]


def test_a_line_that_one_process_cannot_read_stops_both_at_once(begin_two, folder):
  corpus = folder / "broken.jsonl"
  corpus.write_text(
    "\n".join(['{"text": "one"}', "{oops", '{"text": "three"}'])
  )  # line 2 is process 1's
  workdir = folder / "broken corpus"
  assert finish(begin_two(workdir, 4, 1, 1, f"--config.corpus={corpus}"), workdir) == [2, 2]
  said = logs(workdir)
  assert f"{corpus} line 2 is not JSON" in said
  assert "process 1 could not read its part of the corpus; what it printed says why" in said
