"""The files of an activation store: where they lie, how a zarr3 array is laid out, how documents are kept.

Every write goes through a TensorStore KvStore, so a store may lie on any of them (a plain path, file://, gs://, s3://),
and each file is replaced whole (on a disk: written beside, synced, renamed) or not at all.
"""
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import ml_dtypes  # noqa: F401  (numpy learns the name "bfloat16" from it)
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorstore as ts

from nla_jax.errors import NLAError

LAYOUT, MANIFEST, DOCUMENTS = "layout.json", "manifest.json", "documents.parquet"
FORMAT, VERSION = "nla_activations", 1
CACHE_BYTES = 256 << 20  # a store of a small model fits whole; random rows of a large one gain nothing from more

_NO_ROOM = re.compile(r"No space left|File too large|quota|RESOURCE_EXHAUSTED", re.IGNORECASE)
_BYTES = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"})


def below(path: str, child: str) -> str:
  """A folder inside `path`, which is a plain path or a KvStore URL."""
  return f"{path.rstrip('/')}/{child}" if "://" in path else os.path.join(os.path.abspath(path), child)


def spec_of(path: str, child: str = "") -> dict | str:
  """KvStore spec of a folder inside the store at `path` (a plain path or a KvStore URL)."""
  folder = below(path, child)
  return folder if "://" in folder else {"driver": "file", "path": folder}


def record_name(shard: int) -> str:
  """Key of the record that says that a shard is complete."""
  return f"shards/{shard:06d}.json"


def shard_name(array: str, shard: int, rank: int) -> str:
  """Key of the file that holds one shard of an array of `rank` dimensions."""
  return "/".join([array, "c", str(shard), *["0"] * (rank - 1)])


def checksum(array: np.ndarray) -> str:
  """SHA-256 of an array's raw bytes in C order, hexadecimal."""
  return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
  """Turns what TensorStore raises while writing below `path` into an NLAError that names it."""
  try:
    yield
  except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
    reason = str(error).splitlines()[0].split(" [tensorstore_spec=")[0]
    if _NO_ROOM.search(reason):
      raise NLAError(f"no room left to write {path} ({reason}); free some space and run the same command again: the "
                     "shards that are complete are kept") from error
    raise NLAError(f"cannot write {path} ({reason}); make it writable or give another folder") from error


def open_files(path: str) -> ts.KvStore:
  """The store's folder as key-value pairs."""
  try:
    return ts.KvStore.open(spec_of(path)).result()
  except (ValueError, OSError, NotImplementedError) as error:
    raise NLAError(f"{path} is neither a path nor a TensorStore URL such as gs://bucket/folder "
                   f"({str(error).splitlines()[0]})") from error


def read_json(files: ts.KvStore, key: str) -> dict | None:
  """The object under `key`; None where there is none."""
  found = files.read(key).result()
  if found.state != "value":
    return None
  try:
    return json.loads(found.value)
  except ValueError:
    raise NLAError(f"{files.url}{key} is damaged: not JSON; delete it and run the command that made it again") from None


def write_json(files: ts.KvStore, key: str, value: Mapping) -> None:
  with writing(files.url + key):
    files.write(key, json.dumps(value, indent=1, sort_keys=True).encode()).result()


def array_spec(path: str, name: str, *, shape: Sequence[int], dtype: str, shard_rows: int, chunk_rows: int) -> dict:
  """zarr3 spec of an [N, …] array: a file per `shard_rows` rows, a CRC-32C per `chunk_rows` rows.

  A chunk of zeros is written like any other, so a missing file is always damage and never a default.
  """
  tail = list(shape[1:])
  regular = lambda rows: {"name": "regular", "configuration": {"chunk_shape": [rows, *tail]}}
  sharding = {"chunk_shape": [chunk_rows, *tail], "codecs": _BYTES, "index_codecs": _BYTES, "index_location": "end"}
  return {
      "driver": "zarr3", "kvstore": spec_of(path, name + "/"), "recheck_cached_data": "open",
      "store_data_equal_to_fill_value": True,
      "metadata": {"shape": list(shape), "data_type": dtype, "chunk_grid": regular(shard_rows),
                   "chunk_key_encoding": {"name": "default"}, "fill_value": 0,
                   "codecs": [{"name": "sharding_indexed", "configuration": sharding}]},
  }


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
    self.ids, self.groups, self.splits = (table[name].to_pylist() for name in ("id", "group", "split"))
    lists = table["tokens"].chunks
    self._tokens = np.concatenate([np.zeros(0, np.int32), *(chunk.flatten().to_numpy() for chunk in lists)])
    lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(chunk.offsets.to_numpy()) for chunk in lists)])
    self._starts = np.cumsum(lengths)

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> StoredDocument:
    i = range(len(self))[index]
    return StoredDocument(self.ids[i], self.groups[i], self.splits[i],
                          self._tokens[self._starts[i]:self._starts[i + 1]])


def documents_to_parquet(documents: Sequence[StoredDocument], row_group: int = 4096) -> bytes:
  """Columns id, group, split (string) and tokens (list<int32>), in row groups whose offsets fit 32 bits."""
  schema = pa.schema([("id", pa.string()), ("group", pa.string()), ("split", pa.string()),
                      ("tokens", pa.list_(pa.int32()))])
  sink = pa.BufferOutputStream()
  with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
    for start in range(0, len(documents), row_group):
      part = [documents[i] for i in range(start, min(start + row_group, len(documents)))]
      tokens = [np.asarray(document.tokens, np.int32) for document in part]
      offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
      column = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(np.concatenate(tokens)))
      writer.write_table(pa.table([pa.array([d.id for d in part]), pa.array([d.group for d in part]),
                                   pa.array([d.split for d in part]), column], schema=schema))
  return sink.getvalue().to_pybytes()
