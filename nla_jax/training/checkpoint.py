"""Checkpoints: what a stopped stage needs to go on bit for bit, and the parameters that the next stage reads.

Orbax writes them on disks, `nla_jax.training.bucket_checkpoint` in buckets.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from nla_jax.bucket import BucketPath, Place
from nla_jax.errors import NLAError
from nla_jax.models.lora import split
from nla_jax.parallel import distributed, sharding
from nla_jax.training.bucket_checkpoint import (
  BucketCheckpoints,
  load_nested,
  newest_nested,
  save_tree,
)


class Checkpoints:
  """Numbered checkpoints of one stage.

  Each holds `state`, a tree of arrays, and `loop`, plain values: the step, the loaders' positions, numbers that adapt.
  Saving is asynchronous; a restart never sees an unfinished save.

  Args:
    folder: of the checkpoints.
    keep: how many are kept; older ones are deleted.
  """

  def __init__(self, folder: Path, keep: int = 2):
    self._folder = folder.absolute()
    self._manager = ocp.CheckpointManager(
      self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
    )

  def save(self, step: int, state: Any, loop: dict) -> None:
    """Begins to save; returns once the arrays are copied. Raises NLAError where the disk does not take them."""
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), loop=ocp.args.JsonSave(loop)),
      )
    except OSError as error:
      raise NLAError(
        f"could not write a checkpoint under {self._folder}: {error}; earlier checkpoints are whole, free "
        "some space and run the same command again"
      ) from error

  def restore(self, state: Any) -> tuple[Any, dict] | None:
    """The newest whole checkpoint as (state, loop), laid out like `state` (arrays or shapes); None if there is none."""
    step = self._manager.latest_step()
    if step is None:
      return None

    # Shapes alone: the arrays given would otherwise be held beside those that are read.
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    found = self._manager.restore(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes), loop=ocp.args.JsonRestore()),
    )
    return found.state, found.loop

  def close(self) -> None:
    """Waits for the save under way, then releases the folder."""
    self._manager.wait_until_finished()
    self._manager.close()


def checkpoints_in(folder: Place, keep: int = 2) -> Checkpoints | BucketCheckpoints:
  """The checkpoints of a stage, on a disk or in a bucket; arguments as of `Checkpoints`."""
  kind = BucketCheckpoints if isinstance(folder, BucketPath) else Checkpoints
  return kind(folder, keep)


def newest_arrays(folder: Place) -> dict[str, Any] | None:
  """The arrays of the newest whole checkpoint in a folder, as nested dicts; None where there is none.

  For who does not go on training: shapes and layout are those that were saved.
  """
  if isinstance(folder, BucketPath):
    return newest_nested(folder, sharding.parameter_shardings)
  if not folder.exists():
    return None
  with ocp.CheckpointManager(folder.absolute()) as manager:
    step = manager.latest_step()
  if step is None:
    return None
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder.absolute() / str(step) / "state")


def save_params(folder: Place, params: Any) -> None:
  """Writes a finished model's parameters, those that were trained; replaces what is there."""
  params, _ = split(params)
  if isinstance(folder, BucketPath):
    save_tree(folder, params)
    return
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder.absolute(), params, force=True)


def drop_checkpoints(folder: Place) -> None:
  """Deletes the checkpoints of a stage that is done."""
  # All processes have closed their files before one deletes them, and none goes on before they are gone.
  distributed.wait(f"done with {folder}")
  if distributed.is_first():
    if isinstance(folder, BucketPath):
      folder.remove_all()
    else:
      shutil.rmtree(folder, ignore_errors=True)
  distributed.wait(f"dropped {folder}")


def load_params(folder: Place) -> Any:
  """Parameters written by `save_params`, laid out on the mesh in context, or on the first device without one.

  Raises:
    NLAError: there are none in this folder.
  """
  if isinstance(folder, BucketPath):
    return load_nested(folder, sharding.parameter_shardings)
  if not folder.exists():
    raise NLAError(f"no parameters at {folder}")
  with ocp.StandardCheckpointer() as checkpointer:
    found = checkpointer.metadata(folder.absolute()).item_metadata.tree

    # The layout is asked for, so each process reads only the pieces that its devices hold.
    shapes = jax.tree.map(
      lambda leaf, layout: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
      found,
      sharding.parameter_shardings(found),
    )
    return checkpointer.restore(folder.absolute(), shapes)


def encode_loader(state: bytes | dict) -> str:
  """A Grain iterator's state as a string, which fits the `loop` part's JSON."""
  return state.decode() if isinstance(state, bytes) else json.dumps(state)


def decode_loader(text: str, like: bytes | dict) -> bytes | dict:
  """The state that `encode_loader` wrote, of the type that Grain's iterator takes (`like`, one of its states)."""
  return text.encode() if isinstance(like, bytes) else json.loads(text)
