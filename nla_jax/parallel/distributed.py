"""Several processes as one run: who they are, what they agree on, and how they stop together.

jax.distributed starts them (it knows Cloud TPU, Kubernetes, SLURM and MPI by itself). Every process runs the same
program on the same config; files that all need are written by the first one, between two `wait`s, on a file system
that all share. With one process every function here is trivial.
"""

import hashlib
import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from nla_jax.errors import NLAError, first_line

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
  """Joins the other processes. Must be called before anything asks jax for its devices.

  Args:
    coordinator: host:port of the first process; None where the cluster says it (Cloud TPU, Kubernetes, SLURM, MPI).
    processes: how many there are.
    process: which one this is.
    heartbeat_seconds: a process that was silent for so long is dead, and the others stop with an error.

  Raises:
    NLAError: nothing says which cluster this is, or the other processes did not come.
  """
  try:
    jax.distributed.initialize(
      coordinator, processes, process, heartbeat_timeout_seconds=heartbeat_seconds
    )
  except (ValueError, RuntimeError, TypeError) as error:
    reason = first_line(error)
    raise NLAError(
      f"this process could not join the others ({reason}): start it under SLURM, Kubernetes, MPI or on a "
      "TPU pod, or give --coordinator=HOST:PORT --processes=N --process=I"
    ) from error
  _state.update(index=jax.process_index(), count=jax.process_count())


def is_first() -> bool:
  """Whether this process is the one that writes what is written once."""
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
  """The rows of every process, in all of them.

  Args:
    rows: [n_i, …] this process's; the dtype has 32 bits, and only n_i may differ between processes.

  Returns:
    one [n_i, …] array a process, in the order of the processes.
  """
  if _state["count"] == 1:
    return [rows]
  from jax.experimental import multihost_utils

  # All processes must gather arrays of one shape, so the rows are padded to the longest part.
  lengths = multihost_utils.process_allgather(np.int32(len(rows)))
  padded = np.zeros((max(lengths.max(), 1), *rows.shape[1:]), rows.dtype)
  padded[: len(rows)] = rows
  gathered = multihost_utils.process_allgather(padded)
  return [part[:n] for part, n in zip(gathered, lengths, strict=True)]


def together(what: str, function: Callable[[], T]) -> T:
  """The function's value; where it raises an NLAError in one process, it does so in all.

  Args:
    what: what the function does, as in "process 1 could not …".
    function: each process calls it with its own part of the work.
  """
  value, mistake = None, None
  try:
    value = function()
  except NLAError as error:
    mistake = error

  # A process that stopped alone would leave the others waiting at the next collective, for ever.
  flags = gather_rows(np.array([mistake is not None], np.int32))
  failed = np.flatnonzero(np.concatenate(flags))
  if mistake is not None:
    raise mistake
  if len(failed):
    raise NLAError(f"process {failed[0]} could not {what}; what it printed says why")
  return value


def check_same(what: str, value: str) -> None:
  """Raises NLAError in every process where they do not all have the same `value`."""
  digest = hashlib.sha256(value.encode()).digest()[
    :8
  ]  # two numbers are gathered, not a whole config
  digests = np.stack(gather_rows(np.frombuffer(digest, np.uint32)))
  other = np.flatnonzero((digests != digests[0]).any(axis=1))
  if len(other):
    raise NLAError(
      f"the processes do not have the same {what}: process {other[0]} differs from process 0. Start all "
      "of them with the same command and the same installation"
    )


def code_version() -> str:
  """The version of jax and a hash of this package's own sources, kernels included."""
  # In a checkout the kernels lie beside the package, not in it. They are found without being imported.
  package = Path(__file__).parents[1]
  kernels = importlib.util.find_spec("nla_jax.kernels")
  folders = [package, *(kernels.submodule_search_locations if kernels else ())]

  # By their resolved paths: installed, the kernels lie in the package and would be met twice.
  sources = {path.resolve() for folder in folders for path in Path(folder).rglob("*.py")}
  hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in sources)
  return f"{jax.__version__} {hashlib.sha256(' '.join(hashes).encode()).hexdigest()}"


def watch_for_preemption() -> None:
  """From now on SIGTERM asks for a stop at the next step instead of killing the process."""
  # With several processes jax's preemption service takes the signal.
  if _state["count"] == 1:
    signal.signal(signal.SIGTERM, lambda *_: _state.update(terminated=True))


def preempted() -> bool:
  """Whether to save and stop now. Every process calls it once a step, and all get the same answer."""
  if _state["count"] == 1:
    return _state["terminated"]
  from jax.experimental import multihost_utils

  # The service agrees on a number of calls at which all stop, so every process has to count them alike.
  _state["step"] += 1
  return multihost_utils.reached_preemption_sync_point(_state["step"])
