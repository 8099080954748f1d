"""Durable files on a disk or in a bucket: small files and JSON are read and written through a TensorStore KvStore.

A path is a plain path or a KvStore URL such as gs://bucket/folder/file. `here` is the one place that says what a
person's path means, and `expect_file` that a file stands there. A write is atomic and durable: after a crash the old
file is there or the new one, never half of one. JSON lines are the exception, see `JsonLines`.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401  (numpy learns the name "bfloat16" from it)
import tensorstore as ts

from nla_jax import bucket
from nla_jax.errors import NLAError, first_line

AnyPath = str | os.PathLike
_NO_ROOM = re.compile(r"No space left|File too large|quota|RESOURCE_EXHAUSTED", re.IGNORECASE)
_REFUSED = (ValueError, OSError, RuntimeError, NotImplementedError)  # what TensorStore raises


def here(path: AnyPath) -> str:
  """A path as a person wrote it, for the file system: `~` is the home folder; a URL stays as it is.

  Raises:
    NLAError: it cannot be the name of a file, or is in the home folder of nobody.
  """
  path = os.fspath(path)
  try:
    path.encode()
  except (UnicodeEncodeError, AttributeError):
    raise NLAError(f"the path {path!r} is not UTF-8 text; rename it") from None
  if "\x00" in path:
    raise NLAError(f"the path {path!r} holds a NUL, which no name of a file can")
  if "://" in path or not path.startswith("~"):
    return path

  # Left as it is, it would become a folder called "~".
  found = os.path.expanduser(path)
  if found.startswith("~"):
    raise NLAError(
      f"the path {path} is in the home folder of nobody known here; write ./{path} for a folder of that name"
    )
  return found


def expect_file(path: AnyPath, what: str, advice: str) -> str:
  """The path of a local file that is there and may be read, as `here` gives it.

  Args:
    path: of the file.
    what: it is, for the message.
    advice: what to do where it is not there.

  Raises:
    NLAError: there is nothing, a folder, or a file that this user may not read.
  """
  found = here(path)
  if os.path.isdir(found):
    raise NLAError(f"{what} {path} is a folder, and a file is expected; {advice}")
  if not os.path.exists(found):
    raise NLAError(f"{what} {path} does not exist; {advice}")
  if not os.access(found, os.R_OK):
    raise NLAError(f"{what} {path} may not be read by this user; change its permissions")
  return found


def below(path: AnyPath, child: str) -> str:
  """The path of `child` inside the folder `path`."""
  path = here(path)
  if "://" in path:
    return f"{path.rstrip('/')}/{child}"
  return os.path.join(_absolute(path), child)


def _absolute(path: str) -> str:
  """A local path as TensorStore takes it. Raises NLAError where it would mean another one."""
  found = os.path.abspath(path)
  if "\\" in found:
    raise NLAError(
      f"the path {path} holds a backslash, which TensorStore takes for a slash: files would lie elsewhere; rename it"
    )
  return found


def spec_of(path: AnyPath, child: str = "") -> dict | str:
  """The KvStore spec of `child` inside the folder `path`."""
  folder = below(path, child)
  return bucket.spec(folder) if bucket.is_url(folder) else {"driver": "file", "path": folder}


@contextlib.contextmanager
def writing(path: AnyPath) -> Iterator[None]:
  """Turns what TensorStore or the system raises while writing `path` into an NLAError that names it."""
  try:
    yield
  except _REFUSED as error:
    reason = bucket.reason(error)
    # A full disk is the one case that a person can mend without another folder.
    if _NO_ROOM.search(reason):
      raise NLAError(
        f"no room left to write {path} ({reason}); free some space and run the same command again: "
        "what is complete is kept"
      ) from error

    remedy = bucket.advice(path, error) or "make it writable or give another folder"
    raise NLAError(f"cannot write {path} ({reason}); {remedy}") from error


@contextlib.contextmanager
def reading(path: AnyPath) -> Iterator[None]:
  """Turns what TensorStore or the system raises while reading `path` into an NLAError that names it."""
  try:
    yield
  except _REFUSED as error:
    remedy = bucket.advice(path, error) or "make it readable"
    raise NLAError(f"cannot read {path} ({bucket.reason(error)}); {remedy}") from error


def open_files(path: AnyPath) -> ts.KvStore:
  """A folder as key-value pairs: names of files inside it and their bytes.

  Raises:
    NLAError: `path` is neither a path nor a URL that TensorStore knows, or is a file.
  """
  found = below(path, "")
  if os.path.isfile(found.rstrip(os.sep)):
    raise NLAError(f"{path} is a file, and a folder is expected; give the folder")
  return _open(path, spec_of(path))


def _open(path: AnyPath, spec: dict | str) -> ts.KvStore:
  try:
    return ts.KvStore.open(spec).result()
  except (ValueError, OSError, NotImplementedError) as error:
    raise NLAError(
      f"{path} is neither a path nor a TensorStore URL such as gs://bucket/folder "
      f"({first_line(error)})"
    ) from error


def _open_file(path: AnyPath) -> ts.KvStore:
  """A store whose empty key is the file `path` itself."""
  path = here(path)
  if bucket.is_url(path):
    return _open(path, bucket.spec(path))

  return _open(path, {"driver": "file", "path": _absolute(path)})


def read_bytes(path: AnyPath) -> bytes | None:
  """The content of a file; None where there is none.

  Raises:
    NLAError: the file is there and cannot be read.
  """
  with reading(path):
    found = _open_file(path).read("").result()
  return found.value if found.state == "value" else None


def exists(path: AnyPath) -> bool:
  """Whether there is a file, not a folder, at `path`. It is read whole: ask this of small files."""
  return read_bytes(path) is not None


def write_bytes(path: AnyPath, content: bytes) -> None:
  """Writes a file durably, and the folders above it where they are missing.

  Raises:
    NLAError: there is no room, or the place cannot be written to.
  """
  with writing(path):
    _open_file(path).write("", content).result()


@contextlib.contextmanager
def new_file(path: AnyPath) -> Iterator[BinaryIO]:
  """Gives a file to write into that takes the place of `path`, durably, when all has been written.

  It may be larger than the memory, but for one that goes into a bucket: TensorStore takes that whole.

  Raises:
    NLAError: there is no room, or the place cannot be written to.
  """
  path = here(path)
  if bucket.is_url(path):
    with tempfile.TemporaryFile() as scratch:
      yield scratch
      scratch.seek(0)
      write_bytes(path, scratch.read())
    return

  with writing(path):
    os.makedirs(os.path.dirname(_absolute(path)), exist_ok=True)
    partial = path + ".partial"
    try:
      with open(partial, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(partial, path)
    finally:
      Path(partial).unlink(missing_ok=True)
    folder = os.open(os.path.dirname(_absolute(path)), os.O_RDONLY)
    # The name is durable when the folder is.
    try:
      os.fsync(folder)
    finally:
      os.close(folder)


def sha256(path: AnyPath) -> str | None:
  """The SHA-256 of a file, in hexadecimal, read piece by piece on a disk; None where there is none.

  Raises:
    NLAError: the file is there and cannot be read.
  """
  path = here(path)
  if bucket.is_url(path):
    content = read_bytes(path)
    return None if content is None else hashlib.sha256(content).hexdigest()
  with reading(path):
    if not os.path.isfile(path):
      return None
    with open(path, "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: AnyPath, text: str) -> None:
  """Writes UTF-8 text as `write_bytes` writes bytes."""
  write_bytes(path, text.encode())


def remove_all(folder: AnyPath) -> None:
  """Deletes every file in a folder; a local folder too.

  Raises:
    NLAError: they cannot be deleted.
  """
  with writing(folder):
    open_files(folder).delete_range(ts.KvStore.KeyRange()).result()
    if not bucket.is_url(here(folder)):
      shutil.rmtree(below(folder, ""), ignore_errors=True)


def read_json(path: AnyPath) -> Any | None:
  """The value in a JSON file; None where there is no file.

  Raises:
    NLAError: the file is not JSON or cannot be read.
  """
  content = read_bytes(path)
  if content is None:
    return None

  try:
    return json.loads(content)
  except (ValueError, RecursionError):
    raise NLAError(
      f"{path} is damaged: not JSON; delete it and run the command that made it again"
    ) from None


def write_json(path: AnyPath, value: Any) -> None:
  """Writes a value as indented JSON with sorted keys, durably. Raises NLAError as `write_bytes` does."""
  write_bytes(path, json.dumps(value, indent=1, sort_keys=True).encode())


@contextlib.contextmanager
def whole_directory(directory: Path, mark: str) -> Iterator[Path]:
  """Gives a new local folder beside `directory` that takes its place only when everything in it has been written.

  Args:
    directory: absent, empty, or an earlier export, which is replaced.
    mark: the name of a file that an earlier export holds.

  Raises:
    NLAError: `directory` holds files that are no earlier export, or writing fails.
  """
  replaced = directory.exists()
  if replaced and any(directory.iterdir()) and not (directory / mark).is_file():
    raise NLAError(
      f"{directory} holds files that are no earlier export: choose an empty or a new directory"
    )

  partial = directory.with_name(directory.name + ".partial")
  try:
    # What a process that was killed left there would be taken for a part of this export.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial

    if replaced:
      shutil.rmtree(directory)
    partial.rename(directory)
  except OSError as error:
    raise NLAError(
      f"{directory} could not be written ({error.strerror or error}): free some space or choose "
      "another directory"
    ) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
