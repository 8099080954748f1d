"""The documents of an activation store, with their tokens and splits, as one parquet file."""

import dataclasses
import io
from collections.abc import Collection, Sequence
from typing import BinaryIO

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
_ROLES = pa.field("roles", pa.list_(pa.int8()))  # nor has one without conversations this one


@dataclasses.dataclass(frozen=True)
class StoredDocument:
  """A document as the target saw it.

  Attributes:
    id: unique in the store.
    group: what splits keep together.
    split: "held_out", "av_sft", "ar_sft" or "rl".
    tokens: [n] int32.
    source: name of the corpus it is from; "" in a store of one corpus, which the store's manifest names.
    roles: [n] int8, who says each token (see `nla_jax.data.roles`); None of what is no conversation.
  """

  id: str
  group: str
  split: str
  tokens: np.ndarray
  source: str = ""
  roles: np.ndarray | None = None


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

    self._tokens, self._starts = _flat(table["tokens"], np.int32)
    self._roles = _flat(table[_ROLES.name], np.int8) if _ROLES.name in table.column_names else None

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> StoredDocument:
    i = range(len(self))[index]  # negative indices, and IndexError where it is out of range
    tokens = self._tokens[self._starts[i] : self._starts[i + 1]]
    return StoredDocument(
      self.ids[i], self.groups[i], self.splits[i], tokens, self.sources[i], self._roles_of(i)
    )

  def _roles_of(self, i: int) -> np.ndarray | None:
    if self._roles is None:
      return None
    roles, starts = self._roles
    found = roles[starts[i] : starts[i + 1]]
    # A text beside conversations has an empty list.
    return found if len(found) else None


def _flat(column: pa.ChunkedArray, dtype: type) -> tuple[np.ndarray, np.ndarray]:
  """The values of all lists, and where each list begins among them: [lists + 1]."""
  # Chunk by chunk: each has offsets of its own, and a whole column could overflow 32 bits. The empty arrays in
  # front keep a store without documents readable.
  flat, lengths = [np.zeros(0, dtype)], [np.zeros(1, np.int64)]
  for chunk in column.chunks:
    flat.append(chunk.flatten().to_numpy())
    lengths.append(np.diff(chunk.offsets.to_numpy()))
  return np.concatenate(flat), np.cumsum(np.concatenate(lengths))


def documents_to_parquet(documents: Sequence[StoredDocument], row_group: int = 4096) -> bytes:
  """Returns a parquet file with columns id, group, split, tokens, and source and roles where known.

  Args:
    documents: in the order of the store.
    row_group: documents written together; so few that the offsets of their tokens fit 32 bits.
  """
  sink = io.BytesIO()
  write_parquet(documents, sink, known_columns(documents), row_group)
  return sink.getvalue()


def known_columns(documents: Sequence[StoredDocument]) -> list[str]:
  """Returns which of source and roles one of the documents has."""
  # Only where a document has one: a store of one corpus stays, byte for byte, what it was before there were sources.
  found = []
  if any(documents[i].source for i in range(len(documents))):
    found.append(_SOURCE.name)
  if any(documents[i].roles is not None for i in range(len(documents))):
    found.append(_ROLES.name)
  return found


def write_parquet(
  documents: Sequence[StoredDocument],
  sink: BinaryIO,
  columns: Collection[str],
  row_group: int = 4096,
) -> None:
  """Writes what `documents_to_parquet` returns, holding `row_group` documents at once.

  Args:
    documents: in the order of the store.
    sink: a file that is open for writing.
    columns: as `known_columns` finds them.
    row_group: as there.
  """
  schema = _SCHEMA
  for field in (_SOURCE, _ROLES):
    if field.name in columns:
      schema = schema.append(field)
  with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
    for start in range(0, len(documents), row_group):
      part = [documents[i] for i in range(start, min(start + row_group, len(documents)))]
      writer.write_table(_table(part, schema))


def _table(documents: Sequence[StoredDocument], schema: pa.Schema) -> pa.Table:
  nobody = np.zeros(0, np.int8)
  roles = [nobody if document.roles is None else document.roles for document in documents]
  columns = {
    "id": pa.array([document.id for document in documents]),
    "group": pa.array([document.group for document in documents]),
    "split": pa.array([document.split for document in documents]),
    "tokens": _lists([document.tokens for document in documents], np.int32),
    _SOURCE.name: pa.array([document.source for document in documents]),
    _ROLES.name: _lists(roles, np.int8),
  }
  return pa.table([columns[field.name] for field in schema], schema=schema)


def _lists(values: Sequence[np.ndarray], dtype: type) -> pa.ListArray:
  """A column of lists, from offsets and one flat array: no number becomes Python's on the way."""
  arrays = [np.asarray(one, dtype) for one in values]
  offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
  return pa.ListArray.from_arrays(
    pa.array(offsets.astype(np.int32)), pa.array(np.concatenate(arrays))
  )
