"""Rows of other people's files on their way into an activation store: what every format has in common."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nla_jax.data.left_out import Counts, notes
from nla_jax.data.positions import HELD_OUT, count_twins
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.writer import StoreWriter
from nla_jax.progress import Progress, say

_CHUNK = 64  # rows of the store that are read together


def open_store(
  path: Path, n_rows: int, d_model: int, made_from: dict, together: int
) -> StoreWriter:
  """Opens the store that is written, or resumes one of the same origin.

  Args:
    path: of the store.
    n_rows: of all files.
    d_model: width of an activation.
    made_from: all that decides what the store holds, so that a store of other files is not resumed.
    together: rows that may be in memory at once; a shard is as many, in whole chunks.
  """
  arrays = {
    "activations": ((d_model,), "float32"),
    "document": ((), "int32"),
    "position": ((), "int32"),
    "norm": ((), "float32"),
  }
  shard_rows = -(-together // _CHUNK) * _CHUNK
  return StoreWriter(str(path), arrays, n_rows, shard_rows, _CHUNK, made_from)


def write_shards(
  writer: StoreWriter,
  activations: Callable[[int], Iterator[np.ndarray]],
  document: np.ndarray,
  position: np.ndarray,
) -> None:
  """Writes the shards that are missing; the files are read from the first of them on.

  Args:
    writer: of the store.
    activations: yields the activations from a row on, in batches [n, d] of any size.
    document: [N] int32 of each row.
    position: [N] int32 of each row.
  """
  missing = sorted(set(range(writer.n_shards)) - writer.done)
  if not missing:
    return

  start = writer.shard_range(missing[0]).start
  progress = Progress("convert", len(document), "row", start)
  batches, left = activations(start), None
  for shard in range(missing[0], writer.n_shards):
    rows = writer.shard_range(shard)

    # Batches end where row groups and files end, not where shards do.
    parts, have = ([], 0) if left is None else ([left], len(left))
    while have < len(rows):
      parts.append(next(batches))
      have += len(parts[-1])
    joined = np.concatenate(parts)
    vectors = np.ascontiguousarray(joined[: len(rows)], np.float32)
    left = joined[len(rows) :].copy()  # or the whole batch stays in memory

    if shard in missing:
      part = slice(rows.start, rows.stop)
      columns = {
        "activations": vectors,
        "document": document[part],
        "position": position[part],
        "norm": np.linalg.norm(vectors, axis=1).astype(np.float32),
      }
      writer.write_shard(shard, columns)
    progress.advance(len(rows))
  progress.close()


def say_copies(
  documents: Sequence[StoredDocument],
  document: np.ndarray,
  position: np.ndarray,
  copies: int,
  groups: int,
) -> None:
  """Says how many documents are copies, and how many held-out rows have the context of a trained one all the same.

  Args:
    documents: of the store, with their split.
    document: [N] of each row.
    position: [N] of each row.
    copies: documents that repeat another.
    groups: there were before copies were put together.
  """
  held_out = np.array([one.split == HELD_OUT for one in documents])[document]
  order = np.lexsort((position, document))
  twins = count_twins(
    [one.tokens for one in documents], document[order], position[order], held_out[order]
  )
  counts = Counts(
    drawn=len(documents),
    too_short=0,
    minimum=0,
    without_rows=0,
    copies=copies,
    groups_joined=groups - len({one.group for one in documents}),
    twins=twins,
    held_out_rows=int(held_out.sum()),
  )
  for note in notes(counts):
    say(f"convert: {note}")
