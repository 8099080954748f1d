"""What every process knows of all kept documents of a corpus: numbers and a mark each, no token and no text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nla_jax.data.blocks import ROWS, Blocks
from nla_jax.data.positions import MARK
from nla_jax.parallel import distributed

# What is read of each document as it stands in its block, in the order of `Known`.
_COLUMNS = {
  "source": np.int16,
  "text": MARK,
  "length": np.int32,
  "rows": np.int32,
  "largest": np.int32,
}
_MARKS_AT_ONCE = 1 << 20  # contexts that a process compares at once, 16 bytes each


class Known(NamedTuple):
  """Of the kept documents, in the corpus's order.

  Attributes:
    ends: [blocks] int64, where the documents of each block end.
    source: [n] int16, which part of the corpus it is from.
    text: [n] MARK, of its tokens.
    length: [n] int32, in tokens.
    rows: [n] int32, positions that were chosen.
    largest: [n] int32, its largest token.
    group: [n] int32, its group's number in the order of the names.
    names: of the groups, in order.
    longest: tokens of the longest document that was looked at, also of those that were not kept.
    talks: whether one that was looked at is a conversation.
    roles: whether one that is kept is a conversation.
  """

  ends: np.ndarray
  source: np.ndarray
  text: np.ndarray
  length: np.ndarray
  rows: np.ndarray
  largest: np.ndarray
  group: np.ndarray
  names: pa.Array
  longest: int
  talks: bool
  roles: bool


def read_known(blocks: Blocks, count: int) -> Known:
  """Reads what is known from `count` blocks."""
  columns = {name: [np.zeros(0, dtype)] for name, dtype in _COLUMNS.items()}
  groups, longest, talks, roles = [], 0, False, False
  for block in range(count):
    found = blocks.read(ROWS, block)
    for name, parts in columns.items():
      parts.append(found[name])
    groups.append(_names(found["group"], found["group_ends"]))
    longest = max(longest, int(found["longest"]))
    talks, roles = talks or bool(found["talks"]), roles or bool(found["roles"])

  ends = np.cumsum([len(part) for part in columns["source"][1:]], dtype=np.int64)
  whole = [np.concatenate(parts) for parts in columns.values()]
  return Known(ends, *whole, *_numbered(groups), longest, talks, roles)


def _names(content: np.ndarray, ends: np.ndarray) -> pa.Array:
  """Names from their UTF-8 bytes and where each ends."""
  offsets = np.concatenate([np.zeros(1, np.int64), ends])
  return pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(content))


def _numbered(groups: Sequence[pa.Array]) -> tuple[np.ndarray, pa.Array]:
  """Returns the number of each document's group, int32, and the names, sorted as Python sorts them."""
  column = pa.chunked_array(groups, pa.large_string())
  # Arrow compares UTF-8 bytes, whose order is that of the characters.
  names = pc.unique(column)
  names = names.take(pc.sort_indices(names))
  return pc.index_in(column, names).to_numpy().astype(np.int32), names


def count_twins(blocks: Blocks, known: Known, held_out: np.ndarray) -> int:
  """Counts what `positions.count_twins` counts. Returns this process's share: each compares a part of the contexts.

  Args:
    blocks: of the corpus.
    known: of it.
    held_out: [documents] bool.
  """
  index, processes = distributed.process()
  total = int(known.rows.sum(dtype=np.int64))
  # Contexts are parted by their marks, of which all bits are as good as drawn: what is equal is in one part.
  parts = processes * -(-total // (processes * _MARKS_AT_ONCE))
  twins = 0
  for part in range(index, parts, processes):
    trained, held = _contexts(blocks, known, held_out, part, parts)
    twins += int(np.isin(held, trained).sum())
  return twins


def _contexts(
  blocks: Blocks, known: Known, held_out: np.ndarray, part: int, parts: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the marks of one part of the contexts: of rows that are trained on, and of held-out rows."""
  trained, held = [np.zeros(0, MARK)], [np.zeros(0, MARK)]
  for block, (begin, end) in enumerate(zip([0, *known.ends[:-1]], known.ends, strict=True)):
    marks = blocks.read(ROWS, block)["context"]
    here = marks.view(np.uint32)[::4] % parts == part
    is_held = np.repeat(held_out[begin:end], known.rows[begin:end])
    trained.append(np.unique(marks[here & ~is_held]))
    held.append(marks[here & is_held])
  return np.concatenate(trained), np.concatenate(held)
