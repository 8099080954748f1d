"""Under a real SLURM a job that is told to stop saves, is queued again, and ends with an undisturbed job's numbers.

The job that is stopped has its workdir in a bucket, where there is a server for one: its nodes share no disk.
"""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from support.bucket_servers import BUCKET, s3_server
from support.run_process import SHORT
from support.slurm import cluster, command, missing, state, until

from nla_jax import files
from nla_jax.bucket import Place, place
from nla_jax.json_lines import read_lines
from nla_jax.workdir import CURVE, METRICS

ROOT = Path(__file__).parents[1]
OPTIONS = [*SHORT, "--config.mesh.data=2"]
MINUTES = 15
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(missing() is not None, reason=f"no SLURM to start here: {missing()}"),
]


@pytest.fixture(scope="module")
def bucket():
  """The variables of a bucket's server; none where there is no server to start."""
  if importlib.util.find_spec("moto") is None:
    yield {}
    return
  with s3_server() as variables, pytest.MonkeyPatch.context() as patch:
    for name, value in variables.items():
      patch.setenv(name, value)
    yield variables


@pytest.fixture(scope="module")
def environment(tmp_path_factory, bucket):
  with cluster(tmp_path_factory.mktemp("slurm")) as found:
    yield found | bucket | {"JAX_PLATFORMS": "cpu"}


def submit(workdir: Place, environment: dict[str, str], folder: Path) -> str:
  """The number of the job that the launcher queues for a run of two tasks on two nodes; its log lies in `folder`."""
  options = ["--nodes=2", "--gpus=1", "--time=00:30:00", "--"]
  run = [f"--config={ROOT}/configs/tiny.py", f"--workdir={workdir}", "--heartbeat=20", *OPTIONS]
  words = ["bash", str(ROOT / "launch" / "slurm.sh"), *options, *run]
  done = subprocess.run(
    words, env=environment, cwd=folder, capture_output=True, text=True, timeout=120
  )
  found = re.search(r"Submitted batch job (\d+)", done.stdout)
  assert found, done.stdout + done.stderr
  return found[1]


def said(folder: Path, job: str) -> str:
  return (folder / f"nla-{job}.log").read_text()[-4000:]


def curve(folder: Place) -> list[dict]:
  return [
    {key: value for key, value in line.items() if not key.startswith("seconds")}
    for line in read_lines(folder / CURVE)
  ]


def stop_in(stage: str, job: str, environment: dict[str, str], folder: Path) -> None:
  """Sends the job's tasks SIGTERM once a stage has begun to train; returns when the job is queued again."""

  def reached() -> bool:
    # The log and not the curve: in a bucket that is seen seconds later, when the stage may be over.
    assert state(job, environment) in ("PENDING", "RUNNING", "COMPLETING"), said(folder, job)
    log = folder / f"nla-{job}.log"
    return log.exists() and re.search(rf"^{stage}: .* rows", log.read_text(), re.MULTILINE)

  until(reached, f"{stage} has begun", 60 * MINUTES)
  command(["scancel", "--signal=TERM", job], environment)
  until(lambda: state(job, environment) == "PENDING", "the job is queued again", 120)


def ended(job: str, environment: dict[str, str]) -> bool:
  return state(job, environment) not in ("PENDING", "RUNNING", "COMPLETING")


def test_a_job_stopped_in_sft_and_in_rl_goes_on_by_itself(environment, bucket, tmp_path):
  stopped = place(f"s3://{BUCKET}/stopped") if bucket else tmp_path / "stopped"
  alone = tmp_path / "alone"

  # 1. Stopped twice; each time the launcher's own job puts itself into the queue again.
  job = submit(stopped, environment, tmp_path)
  stop_in("sft a[vr]", job, environment, tmp_path)
  stop_in("rl", job, environment, tmp_path)
  until(lambda: ended(job, environment), "the job has ended", 60 * MINUTES)
  assert state(job, environment) == "COMPLETED", said(tmp_path, job)
  log = (tmp_path / f"nla-{job}.log").read_text()
  assert re.search("sft a[vr] stopped after", log) and "rl stopped after" in log, said(
    tmp_path, job
  )

  # 2. The same job, left alone.
  job = submit(alone, environment, tmp_path)
  until(lambda: ended(job, environment), "the undisturbed job has ended", 60 * MINUTES)
  assert state(job, environment) == "COMPLETED", said(tmp_path, job)
  for stage in ("sft/ar", "sft/av", "rl"):
    assert curve(stopped / stage) == curve(alone / stage)
  found = [files.read_json(workdir / "eval" / METRICS) for workdir in (stopped, alone)]
  assert found[0] == found[1]


def test_a_job_that_a_person_cancels_is_not_queued_again(environment, tmp_path):
  job = submit(tmp_path / "cancelled", environment, tmp_path)
  log = tmp_path / f"nla-{job}.log"

  def begun() -> bool:
    # A job that ended by itself would never begin: that is said now, not in a quarter of an hour.
    assert not ended(job, environment), said(tmp_path, job)
    return log.exists() and "extract" in log.read_text()

  until(begun, "the run has begun", 60 * MINUTES)
  command(["scancel", job], environment)
  until(lambda: ended(job, environment), "the job has ended", 120)
  assert state(job, environment) == "CANCELLED"
