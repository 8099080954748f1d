"""A SLURM of two nodes on this machine, from Debian's packages, in a folder of its own; it needs root."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "munged", "mungekey")
NAMES = ("n0", "n1")
# One core and one pretended GPU each.
_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=2000 Gres=gpu:1"
_CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
GresTypes=gpu
KillWait=5
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
  """What is not here of what a cluster needs; None where all of it is."""
  found = [name for name in PROGRAMS if shutil.which(name) is None]
  if found:
    return f"not installed: {', '.join(found)}"
  if os.geteuid() != 0:
    return "a cluster of one's own needs root"
  # jax looks up the first node's address, and neither may be the machine's own name.
  try:
    socket.gethostbyname(NAMES[0])
  except OSError:
    return f"no address for {' and '.join(NAMES)}: add the line '127.0.0.1 {' '.join(NAMES)}' to /etc/hosts"
  return None


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
  """Starts the cluster in an empty folder; gives the environment in which its commands find it."""
  host = socket.gethostname().split(".")[0]
  ports = _free_ports(3)
  nodes = [_NODE.format(name=name, host=host, port=port) for name, port in zip(NAMES, ports[1:])]
  config = _CONFIG.format(
    host=host, folder=folder, control=ports[0], nodes="\n".join(nodes), names=",".join(NAMES)
  )
  (folder / "slurm.conf").write_text(config)
  # Files that exist: a GPU without one makes its node invalid.
  devices = zip(NAMES, ("/dev/zero", "/dev/null"))
  lines = [f"NodeName={name} Name=gpu File={device}\n" for name, device in devices]
  (folder / "gres.conf").write_text("".join(lines))
  environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

  started = []
  try:
    _start_munge(folder, started)
    for daemon in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in NAMES)):
      started.append(subprocess.Popen(daemon, env=environment))
    until(lambda: _idle(environment) == 2, "the nodes are idle", 60)
    yield environment
    # No job outlives its cluster.
    command(["scancel", "--user=root"], environment)
    until(lambda: not command(["squeue", "-h"], environment).strip(), "the queue is empty", 60)
  finally:
    for process in reversed(started):
      process.send_signal(signal.SIGTERM)
    for process in started:
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
      process.kill()


def _start_munge(folder: Path, started: list) -> None:
  key, socket_file = folder / "munge.key", folder / "munge.socket"
  subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
  places = {
    "key-file": key,
    "socket": socket_file,
    "log-file": folder / "munge.log",
    "pid-file": folder / "munge.pid",
    "seed-file": folder / "munge.seed",
  }
  options = [f"--{name}={path}" for name, path in places.items()]
  # It dislikes folders that others could write to, which a test's folder may lie in.
  started.append(subprocess.Popen(["munged", "--foreground", "--force", *options]))
  until(socket_file.exists, "munge answers", 20)


def _free_ports(n: int) -> list[int]:
  probes = [socket.socket() for _ in range(n)]
  for probe in probes:
    probe.bind(("", 0))
  ports = [probe.getsockname()[1] for probe in probes]
  for probe in probes:
    probe.close()
  return ports


def _idle(environment: dict) -> int:
  return command(["sinfo", "-h", "-N", "-o", "%T"], environment).split().count("idle")


def command(words: list[str], environment: dict[str, str]) -> str:
  """What a command of the cluster prints."""
  done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
  return done.stdout + done.stderr


def state(job: str, environment: dict[str, str]) -> str:
  """Of a job: PENDING, RUNNING, COMPLETED …"""
  words = command(["scontrol", "--oneliner", "show", "job", job], environment).split()
  return next((word.split("=")[1] for word in words if word.startswith("JobState=")), "GONE")


def until(ready: Callable[[], bool], what: str, seconds: float) -> None:
  """Returns when `ready()`; fails after so many seconds."""
  deadline = time.monotonic() + seconds
  while not ready():
    assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}"
    time.sleep(0.2)
