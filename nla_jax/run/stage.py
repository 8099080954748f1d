"""A run's folder: one sub-folder a stage, each closed by a manifest that says what it was made from.

A stage whose manifest matches what is asked for is skipped; one that was begun with the same request goes on where it
was; anything else is an error that names the field that differs, never a silent reuse.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.parallel import distributed

MANIFEST, REQUEST = "manifest.json", "request.json"


def write_json(path: Path, value: Any) -> None:
  """Writes durably: a crash leaves the old file or the new one. Only the first process writes."""
  if not distributed.is_first():
    return
  temporary = path.with_suffix(path.suffix + ".partial")
  try:
    with open(temporary, "w") as file:
      json.dump(value, file, indent=1, sort_keys=True)
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise NLAError(
      f"could not write {path}: {error.strerror}; free some space and run the same command again"
    ) from error
  os.replace(temporary, path)


def digest(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _differences(asked: dict, found: dict, path: str = "") -> Iterator[str]:
  for key in sorted(set(asked) | set(found)):
    here = f"{path}{key}"
    a, f = asked.get(key), found.get(key)
    if isinstance(a, dict) and isinstance(f, dict):
      yield from _differences(a, f, here + ".")
    elif a != f:
      yield f"{here} (made with {f!r}, asked for {a!r})"


@dataclasses.dataclass
class Stage:
  """One stage's folder.

  Attributes:
    path: the folder.
    request: what the stage is made from: config sections and the parents' digests.
    done: the manifest matches the request.
  """

  path: Path
  request: dict
  done: bool
  _begun: float = 0.0

  def finish(self, **facts) -> None:
    """Closes the stage: writes its manifest with `facts` (counts, scales …), versions and seconds."""
    seconds = time.time() - self._begun + self.earlier_seconds()
    names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    write_json(
      self.path / MANIFEST,
      {"request": self.request, "facts": facts, "versions": versions, "seconds": round(seconds, 1)},
    )
    self.done = True
    distributed.wait(f"finished {self.path.name}")

  def earlier_seconds(self) -> float:
    file = self.path / "seconds.json"
    return json.loads(file.read_text()) if file.exists() else 0.0

  def note_progress(self) -> None:
    """Remembers the seconds spent so far, for a stage that is stopped and goes on."""
    write_json(self.path / "seconds.json", time.time() - self._begun + self.earlier_seconds())
    self._begun = time.time()

  @property
  def manifest(self) -> dict:
    return json.loads((self.path / MANIFEST).read_text())

  @property
  def facts(self) -> dict:
    return self.manifest["facts"]

  @property
  def seconds(self) -> float:
    return self.manifest["seconds"]

  @property
  def digest(self) -> str:
    return digest(self.request)


def open_stage(path: Path, request: dict) -> Stage:
  """The stage at `path`, to be made from `request`. Raises NLAError where the folder holds something else."""
  request = json.loads(json.dumps(request))
  path.mkdir(parents=True, exist_ok=True)
  for name in (MANIFEST, REQUEST):
    file = path / name
    if not file.exists():
      continue
    found = json.loads(file.read_text())
    found = found["request"] if name == MANIFEST else found
    if found != request:
      raise NLAError(
        f"{path} was made from something else: {'; '.join(_differences(request, found))}. Give another "
        "--workdir, ask for what was made, or delete that folder and those of the stages after it"
      )
  done, begun = (path / MANIFEST).exists(), (path / REQUEST).exists()
  distributed.wait(f"opened {path.name}")  # all have looked before one writes
  if not begun:
    write_json(path / REQUEST, request)
  distributed.wait(f"begun {path.name}")
  return Stage(path, request, done, time.time())


def closed_stage(path: Path, made_by: str) -> Stage:
  """A finished stage to read from. Raises NLAError saying which command makes it."""
  file = path / MANIFEST
  if not file.exists():
    raise NLAError(
      f"{path} is not there or not finished; `nla {made_by}` with the same --config and --workdir "
      "makes it"
    )
  return Stage(path, json.loads(file.read_text())["request"], True)
