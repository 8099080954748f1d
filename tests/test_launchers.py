"""The launchers print exactly what they would do, and say what is missing."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
  scripts = sorted(map(str, LAUNCH.glob("*.sh")))
  done = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stdout
