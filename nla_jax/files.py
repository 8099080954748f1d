"""Durable files on a disk or in a bucket: every read and write goes through a TensorStore KvStore."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping

import ml_dtypes  # noqa: F401  (numpy learns the name "bfloat16" from it)
import tensorstore as ts

from nla_jax.errors import NLAError

_NO_ROOM = re.compile(r"No space left|File too large|quota|RESOURCE_EXHAUSTED", re.IGNORECASE)


def below(path: str, child: str) -> str:
  """A folder inside `path`, which is a plain path or a KvStore URL."""
  return (
    f"{path.rstrip('/')}/{child}" if "://" in path else os.path.join(os.path.abspath(path), child)
  )


def spec_of(path: str, child: str = "") -> dict | str:
  """KvStore spec of a folder inside the store at `path` (a plain path or a KvStore URL)."""
  folder = below(path, child)
  return folder if "://" in folder else {"driver": "file", "path": folder}


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
  """Turns what TensorStore raises while writing below `path` into an NLAError that names it."""
  try:
    yield
  except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
    reason = str(error).splitlines()[0].split(" [tensorstore_spec=")[0]
    if _NO_ROOM.search(reason):
      raise NLAError(
        f"no room left to write {path} ({reason}); free some space and run the same command again: the "
        "shards that are complete are kept"
      ) from error
    raise NLAError(
      f"cannot write {path} ({reason}); make it writable or give another folder"
    ) from error


def open_files(path: str) -> ts.KvStore:
  """The store's folder as key-value pairs."""
  try:
    return ts.KvStore.open(spec_of(path)).result()
  except (ValueError, OSError, NotImplementedError) as error:
    raise NLAError(
      f"{path} is neither a path nor a TensorStore URL such as gs://bucket/folder "
      f"({str(error).splitlines()[0]})"
    ) from error


def read_json(files: ts.KvStore, key: str) -> dict | None:
  """The object under `key`; None where there is none."""
  found = files.read(key).result()
  if found.state != "value":
    return None
  try:
    return json.loads(found.value)
  except ValueError:
    raise NLAError(
      f"{files.url}{key} is damaged: not JSON; delete it and run the command that made it again"
    ) from None


def write_json(files: ts.KvStore, key: str, value: Mapping) -> None:
  with writing(files.url + key):
    files.write(key, json.dumps(value, indent=1, sort_keys=True).encode()).result()
