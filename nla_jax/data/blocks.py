"""The documents of a corpus on their way into a store: in blocks of records, in files that all processes share.

A block is made by one process and read by whoever needs it, so nobody holds all tokens. What is in it depends on the
corpus and the config, never on the number of processes: a run that was stopped finds its blocks again, also with others
beside it. Of each block there are three files:

  count/000000.npz          of every document: its source, the mark of its id; of every record: how many documents
  documents/000000.parquet  the documents that are kept, with their tokens, without a split
  rows/000000.npz           of these: marks, lengths, groups, positions; written last

`count/whole.json` and `rows/whole.json` say how many blocks there are, and that all are written.
"""

import functools
import io
from collections.abc import Sequence

import numpy as np

from nla_jax import files
from nla_jax.data.store.documents import Documents, StoredDocument, documents_to_parquet

RECORDS = 512  # of a corpus in a block
COUNT, ROWS = "count", "rows"
_DOCUMENTS, _WHOLE = "documents", "whole.json"
_HELD = 2  # blocks of documents in memory at once: one is read after the other, and a shard ends within one


class Blocks:
  """The blocks in a folder.

  Args:
    folder: path or KvStore URL that all processes share.
  """

  def __init__(self, folder: str):
    self.folder = folder
    self._files = files.open_files(folder)
    self.documents = functools.lru_cache(_HELD)(self._documents)

  def whole(self, kind: str) -> int | None:
    """How many blocks there are where all are written; None before."""
    return files.read_json(files.below(self.folder, f"{kind}/{_WHOLE}"))

  def close(self, kind: str, count: int) -> None:
    """Says that all blocks are written."""
    files.write_json(files.below(self.folder, f"{kind}/{_WHOLE}"), count)

  def done(self, kind: str) -> set[int]:
    """Blocks that are written."""
    with files.reading(self.folder):
      names = [key.decode() for key in self._files.list().result()]
    own = [name.removeprefix(f"{kind}/") for name in names if name.startswith(f"{kind}/")]
    return {int(name.removesuffix(".npz")) for name in own if name.endswith(".npz")}

  def write(self, kind: str, block: int, arrays: dict[str, np.ndarray]) -> None:
    """Writes the numbers of a block."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    self._write(f"{kind}/{block:06d}.npz", content.getvalue())

  def read(self, kind: str, block: int) -> dict[str, np.ndarray]:
    """Returns the numbers of a block."""
    with np.load(io.BytesIO(self._read(f"{kind}/{block:06d}.npz"))) as found:
      return dict(found)

  def write_documents(self, block: int, documents: Sequence[StoredDocument]) -> None:
    """Writes the documents of a block."""
    self._write(f"{_DOCUMENTS}/{block:06d}.parquet", documents_to_parquet(documents))

  def _documents(self, block: int) -> Documents:
    return Documents(self._read(f"{_DOCUMENTS}/{block:06d}.parquet"))

  def _write(self, name: str, content: bytes) -> None:
    with files.writing(f"{self.folder}/{name}"):
      self._files.write(name, content).result()

  def _read(self, name: str) -> bytes:
    with files.reading(f"{self.folder}/{name}"):
      return self._files.read(name).result().value
