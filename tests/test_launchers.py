"""The launchers print exactly what they would do, and say what is missing."""

import copy
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.jobset_schema import JOBSET

LAUNCH = Path(__file__).parent.parent / "launch"
NLA = ["--config=configs/tiny.py", "--workdir=/shared/a run"]
OPTIONS = {
  "gpu_node.sh": [],
  "slurm.sh": ["--nodes=2", "--gpus=8"],
  "tpu.sh": ["--name=nla", "--zone=us-east5-a", "--type=v5p-64", "--spot=yes"],
  "gke.sh": [
    "--name=nla",
    "--image=registry/nla",
    "--accelerator=tpu-v5p-slice",
    "--topology=4x4x4",
    "--hosts=16",
    "--chips=4",
    "--slices=2",
  ],
}


def launch(script: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", str(LAUNCH / script), *arguments], capture_output=True, text=True, timeout=60
  )


@pytest.mark.parametrize("script", OPTIONS)
def test_a_dry_run_prints_the_command_that_ends_in_nla_run(script):
  done = launch(script, *OPTIONS[script], "--dry-run", "--", *NLA)
  assert done.returncode == 0, done.stderr
  command = done.stdout.replace("\\", "")
  assert "nla run" in command and "--config=configs/tiny.py" in command
  assert ("--distributed" in command) == (script != "gpu_node.sh")


def test_the_command_keeps_its_words_apart():
  line = launch("gpu_node.sh", "--dry-run", "--", *NLA).stdout
  assert shlex.split(line)[-2:] == NLA


def test_the_jobset_is_yaml_whose_pods_run_nla():
  printed = launch("gke.sh", *OPTIONS["gke.sh"], "--dry-run", "--", *NLA).stdout
  manifest = yaml.safe_load(printed[: printed.index("kubectl")])
  replicated = manifest["spec"]["replicatedJobs"][0]
  assert replicated["replicas"] == 2 and replicated["template"]["spec"]["parallelism"] == 16
  container = replicated["template"]["spec"]["template"]["spec"]["containers"][0]
  assert container["resources"]["limits"]["google.com/tpu"] == 4
  assert shlex.split(container["args"][0])[1:] == ["nla", "run", "--distributed", *NLA]


def test_the_jobset_is_one_by_the_published_schema():
  jsonschema = pytest.importorskip("jsonschema")
  printed = launch("gke.sh", *OPTIONS["gke.sh"], "--dry-run", "--", *NLA).stdout
  manifest = yaml.safe_load(printed[: printed.index("kubectl")])
  validator = jsonschema.Draft202012Validator(JOBSET)
  assert [error.message for error in validator.iter_errors(manifest)] == []

  # Jobs of the set are named by it; a pod's host name is a label of at most 63 characters.
  replicated = manifest["spec"]["replicatedJobs"][0]
  hosts = replicated["template"]["spec"]["completions"]
  last = (
    f"{manifest['metadata']['name']}-{replicated['name']}-{replicated['replicas'] - 1}-{hosts - 1}"
  )
  assert len(last) <= 63

  # The schema is no open door.
  for break_it in (
    lambda found: found["spec"].update(replicas=2),
    lambda found: found["spec"]["failurePolicy"].update(maxRestarts="100"),
    lambda found: found["metadata"].update(name="My run"),
    lambda found: found["spec"]["replicatedJobs"][0].pop("name"),
    lambda found: found["spec"]["replicatedJobs"][0]["template"]["spec"].update(
      completionMode="All"
    ),
  ):
    broken = copy.deepcopy(manifest)
    break_it(broken)
    assert list(validator.iter_errors(broken)), break_it


@pytest.mark.parametrize(
  ("script", "arguments", "message"),
  [
    ("slurm.sh", ["--gpus=8", "--dry-run", "--", *NLA], "--nodes=… is missing"),
    ("slurm.sh", ["--nodes=2", "--gpus=8", "--dry-run"], "nothing to run"),
    ("tpu.sh", ["nla", "--dry-run", "--", *NLA], "nla: expected --name=value"),
  ],
)
def test_what_is_missing_is_said(script, arguments, message):
  done = launch(script, *arguments)
  assert done.returncode == 2 and message in done.stderr, (done.stdout, done.stderr)


@pytest.mark.parametrize(
  ("script", "said"), [("explore.sh", "explore.sh PAIR"), ("read.sh", "read.sh --nla=PAIR")]
)
def test_without_the_box_a_launcher_says_how_to_name_a_pair(tmp_path, script, said):
  # A checkout whose package holds no weights; nothing is installed before this is said.
  shutil.copytree(LAUNCH, tmp_path / "launch")
  (tmp_path / "packages" / "nla_smollm2" / "nla_smollm2").mkdir(parents=True)
  done = subprocess.run(
    ["bash", str(tmp_path / "launch" / script)], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 2 and f"bash launch/{said}" in done.stderr
  assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
  scripts = sorted(map(str, LAUNCH.glob("*.sh")))
  done = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stdout


GCLOUD = """#!/usr/bin/env bash
# Stands in for gcloud: the first run of the command ends with the status $FIRST, the second with 0.
echo "$*" >>"$LOG"
case "$*" in
  *--format=*state*) echo "$STATE" ;;
  *"cat nla_jax/status"*) echo "$FIRST" ;;
  *ssh*--worker=all*) [[ "$(grep -c -- --worker=all.*--command "$LOG")" -gt 1 ]] || exit 1 ;;
esac
"""


@pytest.mark.parametrize(
  ("first", "state", "status", "runs"),
  [
    (75, "READY", 0, 2),  # told to stop, as before maintenance: saved, so it goes on
    (2, "READY", 1, 1),  # a mistake: again would be the same
    (75, "PREEMPTED", 0, 2),  # made again
    (1, "PREEMPTED", 0, 2),  # taken away before it could save
  ],
)
def test_a_slice_whose_run_was_stopped_is_used_again(tmp_path, first, state, status, runs):
  for name, text in (("gcloud", GCLOUD), ("sleep", "#!/bin/sh\n")):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  log = tmp_path / "log"
  environment = {"LOG": str(log), "FIRST": str(first), "STATE": state}
  done = subprocess.run(
    ["bash", str(LAUNCH / "tpu.sh"), *OPTIONS["tpu.sh"], "--", *NLA],
    env={**os.environ, **environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == status, done.stderr
  assert sum("nla run" in line for line in log.read_text().splitlines()) == runs
  assert ("delete" in log.read_text()) == (state == "PREEMPTED")


def test_a_worker_of_a_slice_leaves_its_status(tmp_path):
  """The command that every worker runs, with another program in nla's place."""
  words = shlex.split(launch("tpu.sh", *OPTIONS["tpu.sh"], "--dry-run", "--", *NLA).stdout)
  remote = next(word for word in words if word.startswith("--command=")).removeprefix("--command=")
  ending = remote[remote.index("{") :].replace(".venv/bin/nla", "sh -c 'exit 75'")
  done = subprocess.run(["bash", "-c", ending], cwd=tmp_path, timeout=60)
  assert done.returncode == 75 and (tmp_path / "status").read_text() == "75\n"


def test_a_slurm_job_signals_its_tasks_and_is_queued_again_on_the_status_of_a_stopped_run():
  """tests/test_slurm.py runs it under a real SLURM."""
  printed = launch("slurm.sh", *OPTIONS["slurm.sh"], "--dry-run", "--", *NLA).stdout
  assert "--signal=TERM@120" in printed and "B:" not in printed
  job = printed[: printed.index("sbatch --job-name")]
  for status, queued in ((0, False), (75, True), (2, False), (137, False)):
    stubs = f'srun() {{ return {status}; }}; scontrol() {{ echo queued "$@"; }}; SLURM_JOB_ID=7\n'
    done = subprocess.run(["bash", "-c", stubs + job], capture_output=True, text=True, timeout=60)
    assert done.returncode == status and (done.stdout == "queued requeue 7\n") == queued
