"""Orbax checkpoints: what a stopped stage needs to go on bit for bit, and what the next stage reads."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from nla_jax.errors import NLAError
from nla_jax.parallel import distributed, sharding


class Checkpoints:
  """Numbered checkpoints of one stage: arrays (`state`) and plain values (`loop`: step, loader position, counters).

  Saving is asynchronous; an unfinished save is never seen by a restart.
  """

  def __init__(self, folder: Path, keep: int = 2):
    self._folder = folder.absolute()
    self._manager = ocp.CheckpointManager(
      self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
    )

  def save(self, step: int, state: Any, loop: dict) -> None:
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
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    found = self._manager.restore(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes), loop=ocp.args.JsonRestore()),
    )
    return found.state, found.loop

  def close(self) -> None:
    """Waits for the save under way."""
    self._manager.wait_until_finished()
    self._manager.close()


def save_params(folder: Path, params: Any) -> None:
  """A finished model's parameters, replacing what is there."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder.absolute(), params, force=True)


def drop_checkpoints(folder: Path) -> None:
  """Deletes the checkpoints of a stage that is done."""
  distributed.wait(f"done with {folder}")
  if distributed.is_first():
    shutil.rmtree(folder, ignore_errors=True)
  distributed.wait(f"dropped {folder}")


def load_params(folder: Path) -> Any:
  """Parameters written by `save_params`, in the layout of the mesh in context (without one: on the first device)."""
  if not folder.exists():
    raise NLAError(f"no parameters at {folder}")
  with ocp.StandardCheckpointer() as checkpointer:
    found = checkpointer.metadata(folder.absolute()).item_metadata.tree
    shapes = jax.tree.map(
      lambda leaf, layout: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
      found,
      sharding.parameter_shardings(found),
    )
    return checkpointer.restore(folder.absolute(), shapes)


def encode_loader(state: bytes | dict) -> str:
  """A Grain iterator's state as a string for the `loop` part."""
  return state.decode() if isinstance(state, bytes) else json.dumps(state)


def decode_loader(text: str, like: bytes | dict) -> bytes | dict:
  return text.encode() if isinstance(like, bytes) else json.loads(text)
