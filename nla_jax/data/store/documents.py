"""The documents of an activation store, with their tokens and splits, as one parquet file."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_SCHEMA = pa.schema(
  [
    ("id", pa.string()),
    ("group", pa.string()),
    ("split", pa.string()),
    ("tokens", pa.list_(pa.int32())),
  ]
)
_SOURCE = pa.field("source", pa.string())  # a store of one corpus has no such column


@dataclasses.dataclass(frozen=True)
class StoredDocument:
  """A document as the target saw it.

  Attributes:
    id: unique in the store.
    group: what splits keep together.
    split: "held_out", "av_sft", "ar_sft" or "rl".
    tokens: [n] int32.
    source: name of the corpus it is from; "" in a store of one corpus, which the store's manifest names.
  """

  id: str
  group: str
  split: str
  tokens: np.ndarray
  source: str = ""


class Documents(Sequence[StoredDocument]):
  """All documents of a store. The tokens lie in one flat array, so a document costs a slice.

  Args:
    parquet: what `documents_to_parquet` gave.

  Attributes:
    ids: of each document, in the store's order.
    groups: of each document.
    splits: of each document.
    sources: of each document; "" where the store does not say.
  """

  def __init__(self, parquet: bytes):
    table = pq.read_table(io.BytesIO(parquet))
    self.ids = table["id"].to_pylist()
    self.groups = table["group"].to_pylist()
    self.splits = table["split"].to_pylist()
    named = _SOURCE.name in table.column_names
    self.sources = table[_SOURCE.name].to_pylist() if named else [""] * len(self.ids)

    # Chunk by chunk: each has offsets of its own, and a whole column could overflow 32 bits. The empty arrays in
    # front keep a store without documents readable.
    flat, lengths = [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for chunk in table["tokens"].chunks:
      flat.append(chunk.flatten().to_numpy())
      lengths.append(np.diff(chunk.offsets.to_numpy()))
    self._tokens = np.concatenate(flat)  # [tokens of all documents]
    self._starts = np.cumsum(np.concatenate(lengths))  # [documents + 1]

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> StoredDocument:
    i = range(len(self))[index]  # negative indices, and IndexError where it is out of range
    tokens = self._tokens[self._starts[i] : self._starts[i + 1]]
    return StoredDocument(self.ids[i], self.groups[i], self.splits[i], tokens, self.sources[i])


def documents_to_parquet(documents: Sequence[StoredDocument], row_group: int = 4096) -> bytes:
  """Returns a parquet file with columns id, group, split (string) and tokens (list<int32>), and source where known.

  Args:
    documents: in the order of the store.
    row_group: documents written together; so few that the offsets of their tokens fit 32 bits.
  """
  # Only where a document has one: a store of one corpus stays, byte for byte, what it was before there were sources.
  named = any(documents[i].source for i in range(len(documents)))
  schema = _SCHEMA.append(_SOURCE) if named else _SCHEMA

  sink = pa.BufferOutputStream()
  with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
    for start in range(0, len(documents), row_group):
      part = [documents[i] for i in range(start, min(start + row_group, len(documents)))]
      writer.write_table(_table(part, schema))
  return sink.getvalue().to_pybytes()


def _table(documents: Sequence[StoredDocument], schema: pa.Schema) -> pa.Table:
  tokens = [np.asarray(document.tokens, np.int32) for document in documents]

  # Offsets and one flat array: no token becomes a Python integer on the way.
  offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
  column = pa.ListArray.from_arrays(
    pa.array(offsets.astype(np.int32)), pa.array(np.concatenate(tokens))
  )

  columns = [
    pa.array([document.id for document in documents]),
    pa.array([document.group for document in documents]),
    pa.array([document.split for document in documents]),
    column,
    pa.array([document.source for document in documents]),
  ]
  return pa.table(columns[: len(schema)], schema=schema)
