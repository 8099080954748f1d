"""Trees of arrays in a bucket: each process writes the pieces that its devices hold, and reads those that it needs.

Orbax writes to disks; it knows no S3, and Google's buckets only beside another client library. TensorStore, which it
writes with, knows both, so that a run needs no shared disk. A tree is a folder: an array of zarr3 for each leaf, a
chunk for each shard, and `tree.json` with their names, which is written last.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from nla_jax import bucket, files
from nla_jax.bucket import BucketPath
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed

_TREE, _LOOP, _STATE = "tree.json", "loop.json", "state"


class BucketCheckpoints:
  """Numbered checkpoints of one stage in a bucket, as `nla_jax.training.checkpoint.Checkpoints` on a disk.

  Args:
    folder: of the checkpoints.
    keep: how many are kept; older ones are deleted.
  """

  def __init__(self, folder: BucketPath, keep: int = 2):
    self._folder, self._keep = folder, keep

  def save(self, step: int, state: Any, loop: dict) -> None:
    """Saves; returns when it is durable. Raises NLAError where the bucket does not take it."""
    folder = self._folder / str(step)
    save_tree(folder / _STATE, state)

    # The state is whole in all processes; from here on a restart goes on from it.
    if distributed.is_first():
      files.write_json(folder / _LOOP, loop)
      for old in self.steps()[: -self._keep]:
        # What vouches for it goes first.
        (self._folder / str(old) / _LOOP).unlink()
        (self._folder / str(old)).remove_all()
    distributed.wait(f"saved {folder}")

  def restore(self, state: Any) -> tuple[Any, dict] | None:
    """The newest whole checkpoint as (state, loop), laid out like `state` (arrays or shapes); None if there is none."""
    steps = self.steps()
    step = distributed.agree(steps[-1] if steps else -1)
    if step < 0:
      return None
    folder = self._folder / str(step)
    return load_like(folder / _STATE, state), files.read_json(folder / _LOOP)

  def close(self) -> None:
    """Does nothing: every save is done when it returns."""

  def steps(self) -> list[int]:
    """The steps of whole checkpoints, in their order."""
    names = [path.name for path in self._folder.iterdir()]
    return sorted(
      int(name) for name in names if name.isdigit() and (self._folder / name / _LOOP).is_file()
    )


def save_tree(folder: BucketPath, tree: Any) -> None:
  """Writes a tree of arrays; replaces what is there. All processes take part.

  Raises:
    NLAError: the bucket does not take it.
  """
  if distributed.is_first():
    folder.remove_all()
  distributed.wait(f"emptied {folder}")

  # 1. Every process writes what it alone holds, all at once: a bucket answers late and to many.
  leaves = _named(tree)
  with files.writing(folder):
    opened = {name: ts.open(_spec(folder, name, leaf), **_NEW) for name, leaf in leaves.items()}
    pending = []
    for name, leaf in leaves.items():
      array = opened[name].result()
      pending += [array[index].write(data) for index, data in _own_pieces(leaf)]
    for write in pending:
      write.result()

  # 2. What vouches for it, when all have written.
  distributed.wait(f"wrote {folder}")
  if distributed.is_first():
    files.write_json(folder / _TREE, {name: _described(leaf) for name, leaf in leaves.items()})
  distributed.wait(f"closed {folder}")


def load_like(folder: BucketPath, like: Any) -> Any:
  """A tree that `save_tree` wrote, laid out like `like` (arrays or shapes with shardings).

  Raises:
    NLAError: it is another tree, or not there.
  """
  wanted, found = _named(like), _read_tree(folder)
  if {name: _described(leaf) for name, leaf in wanted.items()} != found:
    other = sorted(set(wanted) ^ set(found)) or ["a shape or a dtype"]
    raise NLAError(
      f"{folder} holds another tree than this run's ({other[0]} differs); give another --workdir, or delete that folder"
    )
  layout = {name: leaf.sharding for name, leaf in wanted.items()}
  return jax.tree.unflatten(jax.tree.structure(like), list(_load(folder, found, layout).values()))


def load_nested(folder: BucketPath, layout: Callable[[Any], Any]) -> Any:
  """A tree of dicts that `save_tree` wrote.

  Args:
    folder: of the tree.
    layout: gives the sharding of each leaf of a tree of shapes.

  Raises:
    NLAError: there is none in this folder.
  """
  found = _read_tree(folder)
  shapes = {}
  for name, (shape, dtype) in found.items():
    *above, last = name.split("/")
    part = shapes
    for key in above:
      part = part.setdefault(key, {})
    part[last] = jax.ShapeDtypeStruct(tuple(shape), dtype)

  return load_like(
    folder,
    jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      shapes,
      layout(shapes),
    ),
  )


def newest_nested(folder: BucketPath, layout: Callable[[Any], Any]) -> Any | None:
  """The arrays of the newest whole checkpoint in a folder, as nested dicts; None where there is none.

  Args:
    folder: of the checkpoints.
    layout: as of `load_nested`.
  """
  steps = BucketCheckpoints(folder).steps()
  return load_nested(folder / str(steps[-1]) / _STATE, layout) if steps else None


_NEW = {"open": True, "create": True}


def _load(folder: BucketPath, found: dict, layout: dict) -> dict[str, jax.Array]:
  """Each array by its name, each process reading its devices' pieces."""
  opened = {
    name: ts.open({"driver": "zarr3", "kvstore": files.spec_of(folder, name + "/")}, read=True)
    for name in layout
  }
  try:
    arrays = {name: array.result() for name, array in opened.items()}
    return {
      name: jax.make_array_from_callback(
        tuple(found[name][0]), layout[name], lambda index, array=array: array[index].read().result()
      )
      for name, array in arrays.items()
    }
  except (ValueError, OSError, RuntimeError) as error:
    # Whole arrays of a server that is silent must not be deleted.
    remedy = bucket.advice(folder, error) or "delete it and run the command again"
    raise NLAError(f"{folder} cannot be read ({bucket.reason(error)}); {remedy}") from error


def _read_tree(folder: BucketPath) -> dict[str, list]:
  found = files.read_json(folder / _TREE)
  if found is None:
    raise NLAError(f"no parameters at {folder}")
  return found


def _named(tree: Any) -> dict[str, Any]:
  """Leaves by the keys that lead to them, joined with slashes, in the tree's order."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _described(leaf: Any) -> list:
  return [list(leaf.shape), str(np.dtype(leaf.dtype))]


def _spec(folder: BucketPath, name: str, leaf: Any) -> dict:
  """The TensorStore spec of a leaf: a chunk is what one device holds."""
  shape = leaf.sharding.shard_shape(leaf.shape) if isinstance(leaf, jax.Array) else leaf.shape
  return {
    "driver": "zarr3",
    "kvstore": files.spec_of(folder, name + "/"),
    "metadata": {
      "shape": list(leaf.shape),
      "data_type": str(np.dtype(leaf.dtype)),
      "chunk_grid": {
        "name": "regular",
        "configuration": {"chunk_shape": [max(n, 1) for n in shape]},
      },
    },
    # A chunk of zeros is written like any other, so a missing file is always damage and never a default.
    "store_data_equal_to_fill_value": True,
  }


def _own_pieces(leaf: Any) -> list[tuple[Any, np.ndarray]]:
  """The pieces of an array that this process writes: of equal ones on several devices the first."""
  if not isinstance(leaf, jax.Array):
    return [(..., np.asarray(leaf))] if distributed.is_first() else []
  held = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
  return [(shard.index, np.asarray(shard.data)) for shard in held]
