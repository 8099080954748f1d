"""Several processes as one run: who they are, what they agree on, and how they stop together.

jax.distributed starts them (it knows Cloud TPU, Kubernetes, SLURM and MPI by itself). Every process runs the same
program on the same config; files that all need are written by the first one, between two `wait`s, on a file system
that all share. With one process every function here is trivial.
"""

import hashlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from nla_jax.errors import NLAError

T = TypeVar("T")

_state = {"index": 0, "count": 1, "step": 0, "terminated": False}


class PreemptedError(Exception):
  """Raised at a step that all processes share, after the run was saved there."""


def initialize(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  heartbeat_seconds: int = 60,
) -> None:
  """Joins the other processes; before anything else uses jax.

  Args:
    coordinator: host:port of the first process; None where the cluster says it (Cloud TPU, Kubernetes, SLURM, MPI).
    processes: how many there are.
    process: which one this is.
    heartbeat_seconds: a process that was silent for so long is dead, and the others stop with an error.

  Raises:
    NLAError: the cluster could not be made out, or the others did not come.
  """
  try:
    jax.distributed.initialize(
      coordinator, processes, process, heartbeat_timeout_seconds=heartbeat_seconds
    )
  except (ValueError, RuntimeError, TypeError) as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise NLAError(
      f"this process could not join the others ({reason}): start it under SLURM, Kubernetes, MPI or on a "
      "TPU pod, or give --coordinator=HOST:PORT --processes=N --process=I"
    ) from error
  _state.update(index=jax.process_index(), count=jax.process_count())


def is_first() -> bool:
  """Whether this process writes what is written once."""
  return _state["index"] == 0


def process() -> tuple[int, int]:
  """This process's index and how many there are."""
  return _state["index"], _state["count"]


def wait(what: str) -> None:
  """Returns when every process has come here."""
  if _state["count"] > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)


def agree(value: int) -> int:
  """The first process's value, in all of them."""
  if _state["count"] == 1:
    return value
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def gather_rows(rows: np.ndarray) -> list[np.ndarray]:
  """The rows of each process, in their order: [n_i, …] arrays of one 32-bit dtype; only the n_i may differ."""
  if _state["count"] == 1:
    return [rows]
  from jax.experimental import multihost_utils

  lengths = multihost_utils.process_allgather(np.int32(len(rows)))
  padded = np.zeros((max(lengths.max(), 1), *rows.shape[1:]), rows.dtype)
  padded[: len(rows)] = rows
  return [
    part[:n] for part, n in zip(multihost_utils.process_allgather(padded), lengths, strict=True)
  ]


def together(what: str, function: Callable[[], T]) -> T:
  """The function's value; where it raises an NLAError in one process, every process stops with one."""
  value, mistake = None, None
  try:
    value = function()
  except NLAError as error:
    mistake = error
  failed = np.flatnonzero(np.concatenate(gather_rows(np.array([mistake is not None], np.int32))))
  if mistake is not None:
    raise mistake
  if len(failed):
    raise NLAError(f"process {failed[0]} could not {what}; what it printed says why")
  return value


def check_same(what: str, value: str) -> None:
  """Raises NLAError in every process where they do not all have the same `value`."""
  all_ = np.stack(
    gather_rows(np.frombuffer(hashlib.sha256(value.encode()).digest()[:8], np.uint32))
  )
  other = np.flatnonzero((all_ != all_[0]).any(axis=1))
  if len(other):
    raise NLAError(
      f"the processes do not have the same {what}: process {other[0]} differs from process 0. Start all "
      "of them with the same command and the same installation"
    )


def code_version() -> str:
  """Versions of jax and of this package's own sources, by hash."""
  digest = hashlib.sha256()
  for path in sorted(Path(__file__).parents[1].rglob("*.py")):
    digest.update(path.read_bytes())
  return f"{jax.__version__} {digest.hexdigest()}"


def watch_for_preemption() -> None:
  """From now on SIGTERM asks for a stop at the next step instead of killing the process."""
  if _state["count"] == 1:  # with several processes jax's preemption service takes the signal
    signal.signal(signal.SIGTERM, lambda *_: _state.update(terminated=True))


def preempted() -> bool:
  """Whether to save and stop now. Every process calls it once a step, and all get the same answer."""
  if _state["count"] == 1:
    return _state["terminated"]
  from jax.experimental import multihost_utils

  _state["step"] += 1
  return multihost_utils.reached_preemption_sync_point(_state["step"])
