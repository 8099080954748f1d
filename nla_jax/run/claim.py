"""One run at a time in a workdir: a claim that ends with its process, on this host and on others.

- On one host the claim is the system's lock on a file (`flock`): it is gone when its process is, however it ended.
- Another host may not see that lock, a bucket has none, and nobody can tell from there whether a process lives. So the
  holder also writes a number that grows (`owner.json`), and who finds another host's number watches for a while whether
  it still grows. No clocks are compared.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from nla_jax import files
from nla_jax.bucket import Place
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed
from nla_jax.progress import say
from nla_jax.workdir import LOCK, OWNER

BEAT_SECONDS = 10.0
_PATIENCE = 3  # beats that may be missed before a holder on another host counts as dead


@dataclasses.dataclass(frozen=True)
class Owner:
  """Who holds a workdir.

  Attributes:
    host: its name.
    process: number on that host.
    since: when it began, UTC.
    beat: how often it has said that it lives.
  """

  host: str
  process: int
  since: str
  beat: int = 0


@contextlib.contextmanager
def claimed(workdir: Place) -> Iterator[None]:
  """Holds a workdir while a run writes there; the first process of a run holds it for all.

  Raises:
    NLAError: another run holds it.
  """
  claim = distributed.together("claim the workdir", lambda: _first_claims(workdir))
  try:
    yield
  finally:
    if claim is not None:
      claim.release()


def _first_claims(workdir: Place) -> "_Claim | None":
  return _Claim(workdir) if distributed.is_first() else None


def _lock_of(workdir: Place) -> Path:
  """The file whose lock is the claim on this host; a bucket has no locks, so it lies beside other passing files."""
  if isinstance(workdir, Path):
    return workdir / LOCK
  name = hashlib.sha256(str(workdir).encode()).hexdigest()[:16]
  return Path(tempfile.gettempdir()) / f"nla_jax_{name}.{LOCK}"


class _Claim:
  """A held workdir; `release` gives it back."""

  def __init__(self, workdir: Place):
    workdir.mkdir(parents=True, exist_ok=True)
    self._workdir, self._file = workdir, workdir / OWNER
    self._lock = os.open(_lock_of(workdir), os.O_RDWR | os.O_CREAT, 0o666)
    try:
      # 1. Nobody on this host, nor on another where the file system knows locks.
      self._take_lock()

      # 2. Nobody on a host that does not see the lock.
      found = self._read()
      if found is not None and found.host != socket.gethostname():
        self._watch(found)
    except BaseException:
      os.close(self._lock)
      raise

    # 3. Ours: said now, and again and again.
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    self._owner = Owner(socket.gethostname(), os.getpid(), now)
    self._write()
    self._done = threading.Event()
    self._thread = threading.Thread(target=self._keep_saying, daemon=True)
    self._thread.start()

  def release(self) -> None:
    """Lets others in."""
    self._done.set()
    self._thread.join()
    self._file.unlink(missing_ok=True)
    os.close(self._lock)

  def _take_lock(self) -> None:
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EAGAIN, errno.EACCES):
        raise self._taken(self._read()) from error
      # A file system without locks: what its owner says is all there is.

  def _watch(self, found: Owner) -> None:
    """Returns where another host's number no longer grows."""
    patience = _PATIENCE * BEAT_SECONDS
    say(
      f"{self._workdir} was last used by process {found.process} on {found.host}; watching for {patience:.0f} s "
      "whether that run is still there"
    )
    until = time.monotonic() + patience
    while time.monotonic() < until:
      time.sleep(BEAT_SECONDS / 4)
      now = self._read()
      if now is None:
        return
      if now != found:
        raise self._taken(now)

  def _taken(self, owner: Owner | None) -> NLAError:
    who = "another run"
    if owner is not None:
      who = f"process {owner.process} on {owner.host}, which began at {owner.since} UTC,"
    return NLAError(
      f"{who} is at work in {self._workdir}: two runs would write the same files. Wait until it ends, stop it, "
      "or give another --workdir"
    )

  def _read(self) -> Owner | None:
    """Who says that it holds the workdir; None where nobody does."""
    try:
      found = files.read_json(self._file)
      return None if found is None else Owner(**found)
    except (NLAError, TypeError):  # half of a file, or another version's
      return None

  def _write(self) -> None:
    files.write_json(self._file, dataclasses.asdict(self._owner))

  def _keep_saying(self) -> None:
    while not self._done.wait(BEAT_SECONDS):
      self._owner = dataclasses.replace(self._owner, beat=self._owner.beat + 1)
      try:
        self._write()
      except NLAError:  # the disk is full: the run itself will say so
        continue
