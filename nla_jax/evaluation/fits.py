"""What an evaluation fits on training rows (lenses, an SAE): fitted once a subject, and kept on disk."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nla_jax import files
from nla_jax.bucket import Place
from nla_jax.evaluation.subject import Subject
from nla_jax.parallel import distributed

Arrays = dict[str, np.ndarray]
_MADE_FROM = "made_from"  # among the arrays: JSON, as bytes


def fitted(
  subject: Subject, name: str, made_from: Mapping[str, Any], fit: Callable[[], Arrays]
) -> Arrays:
  """The arrays of a fit: those of this subject, those on disk, or new ones.

  Args:
    subject: of the evaluation.
    name: of the fit, and of its file.
    made_from: JSON values beside the store's content; a file that was made from others is not read.
    fit: fits.
  """
  key = ("fit", name)
  if key in subject.kept:
    return subject.kept[key]

  file = file_of(subject, name)
  origin = origin_of(subject, made_from)
  found = read(file, origin) if file else None
  # All processes have looked before one writes, so that all come to the same answer.
  distributed.wait(f"looked for the fit of {name}")
  if found is None:
    found = fit()
    if file and distributed.is_first():
      write(file, origin, found)
  subject.kept[key] = found
  return found


def file_of(subject: Subject, name: str) -> Place | None:
  """Where a fit is kept; None where the subject has no folder."""
  return None if subject.folder is None else subject.folder / f"{name}.npz"


def origin_of(subject: Subject, made_from: Mapping[str, Any]) -> dict[str, Any]:
  """What tells one fit from another: the store's content, the block, and what the fit itself depends on."""
  content = subject.store.manifest.get("content_hash")
  return {"store": content, "layer": subject.nla.pair.layer, "seed": subject.seed, **made_from}


def read(file: Place, origin: Mapping[str, Any]) -> Arrays | None:
  """The arrays in a file; None where there is none, or it was made from something else."""
  content = files.read_bytes(file)
  if content is None:
    return None
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
      arrays = dict(found)
    same = json.loads(arrays.pop(_MADE_FROM).tobytes()) == dict(origin)
  except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
    return None  # of another version, or no such file
  return arrays if same else None


def restored(file: Place | None, origin: Mapping[str, Any], state: Any) -> tuple[Any, int]:
  """A training's state and how many steps it has made, as `save` left them; as given, and 0, where it did not.

  Args:
    file: of the training; None where it is kept nowhere.
    origin: JSON values that tell this training from others.
    state: before the first step, a tree of arrays.
  """
  held = read(file, origin) if file else None
  if held is None:
    return state, 0
  leaves, tree = jax.tree.flatten(state)
  return jax.tree.unflatten(tree, [held[f"leaf{i}"] for i in range(len(leaves))]), int(held["done"])


def save(file: Place | None, origin: Mapping[str, Any], state: Any, done: int) -> None:
  """Keeps a training's state after `done` steps; the first process writes."""
  if file and distributed.is_first():
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    write(file, origin, {**leaves, "done": np.array(done)})


def write(file: Place, origin: Mapping[str, Any], arrays: Arrays) -> None:
  """Writes arrays and what they were made from, durably."""
  content = io.BytesIO()
  note = np.frombuffer(json.dumps(dict(origin)).encode(), np.uint8)
  np.savez(content, **arrays, **{_MADE_FROM: note})
  files.write_bytes(file, content.getvalue())
