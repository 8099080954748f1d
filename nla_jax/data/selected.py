"""What was selected of a corpus: its documents, read from their blocks as they are asked for, and their rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.data.blocks import ROWS, Blocks
from nla_jax.data.known import Known
from nla_jax.data.left_out import Counts, Part
from nla_jax.data.positions import SPLITS
from nla_jax.data.store.documents import StoredDocument


class Rows(NamedTuple):
  """Some rows that follow each other.

  Attributes:
    documents: {number: document} that they are from.
    document: [n] int32, number of each row's document.
    position: [n] int32, index of the row's token.
  """

  documents: Mapping[int, StoredDocument]
  document: np.ndarray
  position: np.ndarray


class Selected(Sequence[StoredDocument]):
  """The documents of a selection. What is held of each is a few numbers; its tokens are read with its block.

  Args:
    blocks: that they are in.
    found: what is known of them.
    group: [n] int, the number of each one's group.
    split: [n] int8, index into SPLITS.
  """

  def __init__(self, blocks: Blocks, found: Known, group: np.ndarray, split: np.ndarray):
    self._blocks, self._ends, self._split = blocks, found.ends, split
    # Of groups that were joined to others, the block does not know the name.
    self._renamed = np.flatnonzero(group != found.group)
    self._names = found.names.take(group[self._renamed])

  def __len__(self) -> int:
    return len(self._split)

  def __getitem__(self, index: int) -> StoredDocument:
    i = range(len(self))[index]  # negative indices, and IndexError where it is out of range
    block = int(np.searchsorted(self._ends, i, side="right"))
    found = self._blocks.documents(block)[i - (int(self._ends[block - 1]) if block else 0)]

    group, at = found.group, int(np.searchsorted(self._renamed, i))
    if at < len(self._renamed) and self._renamed[at] == i:
      group = self._names[at].as_py()
    return dataclasses.replace(found, group=group, split=SPLITS[self._split[i]])


class Selection:
  """What will be extracted, known before the model runs.

  Args:
    blocks: of the corpus.
    found: what is known of its documents.
    group: [documents] int, the number of each one's group.
    split: [documents] int8, index into SPLITS.
    counts: of what was left out or put together, and why; see `left_out.notes`.
    parts: {source: what was drawn of it}, of a corpus of several.

  Attributes:
    documents: as the target sees them, with their split.
    counts: as given.
    parts: as given.
    conversations: whether a document was written by the chat template.
    roles: whether one of `documents` is.
    sources: whether they name their source.
    groups: how many there are.
    lengths: [documents] int32, in tokens.
    largest: the largest token of each document, each once, ascending.
    rows_by_split: {split: rows}.
  """

  def __init__(
    self,
    blocks: Blocks,
    found: Known,
    group: np.ndarray,
    split: np.ndarray,
    counts: Counts,
    parts: Mapping[str, Part],
  ):
    self.documents = Selected(blocks, found, group, split)
    self.counts, self.parts = counts, parts
    self.conversations, self.roles, self.sources = found.talks, found.roles, bool(parts)
    self.groups, self.lengths = len(np.unique(group)), found.length
    self.largest = np.unique(found.largest)
    rows = np.bincount(split, found.rows, minlength=len(SPLITS)).astype(np.int64).tolist()
    self.rows_by_split = dict(zip(SPLITS, rows, strict=True))
    self._blocks, self._block_ends = blocks, found.ends
    self._row_ends = np.cumsum(found.rows, dtype=np.int64)

  def __len__(self) -> int:
    """How many rows there are."""
    return int(self._row_ends[-1])

  @property
  def document(self) -> np.ndarray:
    """The number of each row's document, [N] int32."""
    return self.document_of(range(len(self)))

  @property
  def position(self) -> np.ndarray:
    """The index of each row's token, [N] int32: what every block says, put together."""
    return self._positions(0, len(self.documents))

  def document_of(self, rows: range) -> np.ndarray:
    """Returns the number of the document of each of some rows that follow each other, [n] int32."""
    first, last = np.searchsorted(self._row_ends, [rows.start, rows.stop - 1], side="right")
    ends = np.clip(self._row_ends[first : last + 1], rows.start, rows.stop)
    times = np.diff(ends, prepend=rows.start)
    return np.repeat(np.arange(first, last + 1, dtype=np.int32), times)

  def rows(self, rows: range) -> Rows:
    """Reads some rows that follow each other, with their documents."""
    document = self.document_of(rows)
    first, last = int(document[0]), int(document[-1]) + 1
    begin = rows.start - (int(self._row_ends[first - 1]) if first else 0)
    position = self._positions(first, last)[begin : begin + len(rows)]
    numbers = np.unique(document).tolist()
    return Rows({i: self.documents[i] for i in numbers}, document, position)

  def _positions(self, first: int, last: int) -> np.ndarray:
    """Reads the positions of all rows of the documents from `first` to the one before `last`."""
    begin, end = np.searchsorted(self._block_ends, [first, last - 1], side="right").tolist()
    found = [self._blocks.read(ROWS, block)["position"] for block in range(begin, end + 1)]
    # Rows before the blocks, and before the first document.
    before = self._rows_before(int(self._block_ends[begin - 1]) if begin else 0)
    rows = slice(self._rows_before(first) - before, self._rows_before(last) - before)
    return np.concatenate(found)[rows]

  def _rows_before(self, document: int) -> int:
    return int(self._row_ends[document - 1]) if document else 0
