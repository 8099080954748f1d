"""Files of JSON lines that grow while a stage runs, on a disk or in a bucket."""

import json
import os
import time
from collections.abc import Callable

from nla_jax import bucket, files
from nla_jax.files import AnyPath

SEND_SECONDS = 20.0  # how old a line may become before it is in the bucket


class JsonLines:
  """A file of JSON lines to append to.

  On a disk it is an ordinary file: every line is handed to the system at once, and a crash can cost the last line,
  which `read_lines` leaves out. A bucket cannot append: there the file is written whole, now and then and at `sync`.
  """

  def __init__(self, path: AnyPath, keep: Callable[[dict], bool] = lambda line: True):
    """Opens the file to append to it, without those lines already there that `keep` refuses.

    Raises:
      NLAError: there is no room, or the place cannot be written to.
    """
    self._path = os.fspath(path)
    kept = [json.dumps(line) + "\n" for line in read_lines(path) if keep(line)]

    # Written whole first: a crash here leaves either the old lines or those that are kept.
    files.write_text(path, "".join(kept))
    self._in_bucket, self._sent = bucket.is_url(self._path), time.monotonic()
    if self._in_bucket:
      self._lines, self._waiting = kept, False
    else:
      self._file = open(path, "a")  # noqa: SIM115 - open as long as the stage runs

  def write(self, line: dict) -> None:
    """Appends one line. Raises NLAError where there is no room."""
    if self._in_bucket:
      self._lines.append(json.dumps(line) + "\n")
      self._waiting = True
      if time.monotonic() - self._sent > SEND_SECONDS:
        self.sync()
      return

    with files.writing(self._path):
      self._file.write(json.dumps(line) + "\n")
      # Whoever watches the curve sees the step now, and a killed process loses nothing.
      self._file.flush()

  def to_disk(self) -> None:
    """Returns when a file on a disk would survive the machine's fall: for lines that cost money."""
    if not self._in_bucket:
      with files.writing(self._path):
        os.fsync(self._file.fileno())

  def sync(self) -> None:
    """Returns when all lines are where they belong: before a checkpoint, since a run goes on from there."""
    if self._in_bucket and self._waiting:
      files.write_text(self._path, "".join(self._lines))
      self._sent, self._waiting = time.monotonic(), False

  def close(self) -> None:
    """Closes the file."""
    self.sync()
    if not self._in_bucket:
      self._file.close()


def read_lines(path: AnyPath) -> list[dict]:
  """The lines of a `JsonLines` file up to the first that a crash cut off; none where there is no file."""
  text = (files.read_bytes(path) or b"").decode(errors="replace")
  lines = []
  for line in text.splitlines():
    try:
      lines.append(json.loads(line))
    except (ValueError, RecursionError):
      break  # nothing after it can be trusted to follow it

  return lines
