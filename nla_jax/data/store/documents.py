"""The documents of an activation store, with their tokens and splits, as one parquet file."""

import dataclasses
import io
from collections.abc import Sequence

import ml_dtypes  # noqa: F401  (numpy learns the name "bfloat16" from it)
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclasses.dataclass(frozen=True)
class StoredDocument:
  """A document as the target saw it.

  Attributes:
    id: unique in the store.
    group: what splits keep together.
    split: "held_out", "av_sft", "ar_sft" or "rl".
    tokens: [n] int32.
  """

  id: str
  group: str
  split: str
  tokens: np.ndarray


class Documents(Sequence[StoredDocument]):
  """All documents of a store; tokens lie in one flat array, so a document costs a slice."""

  def __init__(self, parquet: bytes):
    table = pq.read_table(io.BytesIO(parquet))
    self.ids, self.groups, self.splits = (
      table[name].to_pylist() for name in ("id", "group", "split")
    )
    lists = table["tokens"].chunks
    self._tokens = np.concatenate(
      [np.zeros(0, np.int32), *(chunk.flatten().to_numpy() for chunk in lists)]
    )
    lengths = np.concatenate(
      [np.zeros(1, np.int64), *(np.diff(chunk.offsets.to_numpy()) for chunk in lists)]
    )
    self._starts = np.cumsum(lengths)

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> StoredDocument:
    i = range(len(self))[index]
    return StoredDocument(
      self.ids[i],
      self.groups[i],
      self.splits[i],
      self._tokens[self._starts[i] : self._starts[i + 1]],
    )


def documents_to_parquet(documents: Sequence[StoredDocument], row_group: int = 4096) -> bytes:
  """Columns id, group, split (string) and tokens (list<int32>), in row groups whose offsets fit 32 bits."""
  schema = pa.schema(
    [
      ("id", pa.string()),
      ("group", pa.string()),
      ("split", pa.string()),
      ("tokens", pa.list_(pa.int32())),
    ]
  )
  sink = pa.BufferOutputStream()
  with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
    for start in range(0, len(documents), row_group):
      part = [documents[i] for i in range(start, min(start + row_group, len(documents)))]
      tokens = [np.asarray(document.tokens, np.int32) for document in part]
      offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
      column = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(np.concatenate(tokens))
      )
      writer.write_table(
        pa.table(
          [
            pa.array([d.id for d in part]),
            pa.array([d.group for d in part]),
            pa.array([d.split for d in part]),
            column,
          ],
          schema=schema,
        )
      )
  return sink.getvalue().to_pybytes()
