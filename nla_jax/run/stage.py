"""One stage's folder in a workdir, closed by a manifest that says what the stage was made from.

A stage whose manifest matches what is asked for is skipped. One that was begun with the same request continues where it
was stopped. Anything else is an error that names the field that differs, never a silent reuse.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Iterator
from typing import Any

from nla_jax import files
from nla_jax.bucket import Place
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed
from nla_jax.workdir import MANIFEST, REQUEST, SECONDS, TOKENS

_VERSIONS_OF = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def write_json(path: Place, value: Any) -> None:
  """Writes a JSON file durably, by the first process alone: all processes of a run share the workdir.

  Raises:
    NLAError: there is no room, or the place cannot be written to.
  """
  if distributed.is_first():
    files.write_json(path, value)


def digest(value: Any) -> str:
  """A short hash of a JSON value: equal values have equal digests."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass
class Stage:
  """One stage's folder.

  Attributes:
    path: the folder.
    request: what the stage is made from: sections of the config and the digests of the stages before it.
    done: whether the stage is finished; its manifest then has this request.
  """

  path: Place
  request: dict
  done: bool
  _begun: float = 0.0

  def finish(self, **facts) -> None:
    """Closes the stage: writes its manifest with `facts` (counts, scales …), versions and seconds."""
    seconds = time.time() - self._begun + self.earlier_seconds()
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
    manifest = {
      "request": self.request,
      "facts": facts,
      "versions": versions,
      "seconds": round(seconds, 1),
    }

    write_json(self.path / MANIFEST, manifest)
    self.done = True
    # No process may read the manifest before the first one has written it.
    distributed.wait(f"finished {self.path.name}")

  def earlier_seconds(self) -> float:
    """Seconds that stopped runs of this stage took, up to their last `note_progress`."""
    return files.read_json(self.path / SECONDS) or 0.0

  def note_progress(self) -> None:
    """Remembers the seconds spent so far, for a stage that is stopped and continues."""
    write_json(self.path / SECONDS, time.time() - self._begun + self.earlier_seconds())
    self._begun = time.time()

  @property
  def manifest(self) -> dict:
    """What `finish` wrote."""
    return files.read_json(self.path / MANIFEST)

  @property
  def facts(self) -> dict:
    """What `finish` was given; `run/facts.py` names the values."""
    return self.manifest["facts"]

  @property
  def seconds(self) -> float:
    """How long the stage took, all its runs together."""
    return self.manifest["seconds"]

  @property
  def digest(self) -> str:
    """Identifies what the stage is made from, for the requests of later stages."""
    return digest(self.request)


def open_stage(path: Place, request: dict, defaults: dict | None = None) -> Stage:
  """The stage at `path`, to be made from `request` or continued.

  Args:
    path: the stage's folder.
    request: what it is to be made from, as JSON values.
    defaults: such a request with every key at its default. A key that an earlier version did not have counts as if it
      had been at its default, which is what that version did.

  Raises:
    NLAError: the folder holds something that was made from another request.
  """
  request = json.loads(json.dumps(request))  # as it will be read back: tuples become lists
  path.mkdir(parents=True, exist_ok=True)
  manifest, begun = files.read_json(path / MANIFEST), files.read_json(path / REQUEST)
  if {one.name for one in path.iterdir()} <= {REQUEST, SECONDS, TOKENS}:
    begun = None  # nothing came of it, such as of a file that was refused: it binds nobody
  made = manifest["request"] if manifest else begun
  found = made and _completed(made, json.loads(json.dumps(defaults or {})))
  if found is not None and found != request:
    raise NLAError(
      f"{path} was made from something else: {'; '.join(_differences(request, found))}. Give another "
      "--workdir, ask for what was made, or delete that folder and those of the stages after it"
    )

  # All processes have looked before one writes, so that all come to the same answer.
  distributed.wait(f"opened {path.name}")
  if begun is None:
    write_json(path / REQUEST, request)
  distributed.wait(f"begun {path.name}")
  # As it was first asked for: later stages name it by the digest of that.
  return Stage(path, made or request, done=manifest is not None, _begun=time.time())


def _completed(found: dict, defaults: dict) -> dict:
  """A request with the defaults of the keys that it lacks."""
  both = defaults | found
  return {
    key: _completed(value, defaults[key])
    if isinstance(value, dict) and isinstance(defaults.get(key), dict)
    else value
    for key, value in both.items()
  }


def closed_stage(path: Place, made_by: str) -> Stage:
  """A finished stage to read from. Raises NLAError saying which command makes it."""
  manifest = files.read_json(path / MANIFEST)
  if manifest is None:
    raise NLAError(
      f"{path} is not there or not finished; `nla {made_by}` with the same --config and --workdir "
      "makes it"
    )
  return Stage(path, manifest["request"], done=True)


def _differences(asked: dict, found: dict, path: str = "") -> Iterator[str]:
  """Each key at which two requests differ, with both values."""
  for key in sorted(set(asked) | set(found)):
    here = f"{path}{key}"
    a, f = asked.get(key), found.get(key)
    if isinstance(a, dict) and isinstance(f, dict):
      yield from _differences(a, f, here + ".")
    elif a != f:
      yield f"{here} (made with {f!r}, asked for {a!r})"
