"""The activation store: N rows of activations with their document, position and norm, and the documents once.

A folder (or any TensorStore KvStore URL) with

  activations/ [N, d]  document/ [N]  position/ [N]  norm/ [N]  …   zarr3 arrays, one file a shard of rows
  documents.parquet                                                  id, group, split, tokens
  shards/000000.json …                                               which shards are complete, with their checksums
  layout.json                                                        shapes, and what the rows are made from
  manifest.json                                                      written last; a folder without it is unfinished

A shard counts only once its record is there, and the record is written after every array's file. A process killed at
any moment therefore leaves complete, recorded shards and at most some files that the next run writes again.

Integrity has two layers. TensorStore checks a CRC-32C of each inner chunk (and of each shard's index) whenever it reads
one from disk, so damage is found on read without reading whole shards; `Store.verify` compares whole shards with the
SHA-256 of the bytes that the writer was given.
"""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import tensorstore as ts

from nla_jax import files
from nla_jax.data.store import layout
from nla_jax.data.store.documents import Documents, StoredDocument, documents_to_parquet
from nla_jax.errors import NLAError

ArraySpecs = Mapping[str, tuple[tuple[int, ...], str]]


class StoreWriter:
  """Opens, or re-opens after an interruption, a store of known size for writing.

  Several processes may hold a writer of one path and write different shards; one of them calls `write_documents` and
  `finish`. `write_shard` may be called from several threads for different shards.

  Args:
    path: folder or KvStore URL; made where it is missing.
    arrays: {name: (shape of a row, dtype)}, such as {"activations": ((576,), "float32"), "document": ((), "int32")}.
    n_rows: N.
    shard_rows: rows a file; a multiple of `chunk_rows`.
    chunk_rows: rows read together.
    made_from: JSON values that identify the rows (model hash, layer, corpus, seed); a folder with others is refused.

  Raises:
    NLAError: the folder holds a store of another layout or origin (the field is named), or cannot be written.
  """

  def __init__(
    self,
    path: str,
    arrays: ArraySpecs,
    n_rows: int,
    shard_rows: int = 16384,
    chunk_rows: int = 64,
    made_from: Mapping | None = None,
  ):
    if n_rows < 1:
      raise NLAError(f"a store of {n_rows} rows was asked for at {path}; there must be at least 1")
    if chunk_rows < 1 or shard_rows < 1 or shard_rows % chunk_rows:
      raise NLAError(
        f"shards of {shard_rows} rows cannot be cut into chunks of {chunk_rows}; make "
        "shard_rows a multiple of chunk_rows"
      )
    self.path = str(path)
    self._files = files.open_files(self.path)
    fields = {
      name: {"shape": list(tail), "dtype": np.dtype(dtype).name}
      for name, (tail, dtype) in arrays.items()
    }
    self._layout = json.loads(
      json.dumps(
        {
          "format": layout.FORMAT,
          "version": layout.VERSION,
          "n_rows": n_rows,
          "shard_rows": shard_rows,
          "chunk_rows": chunk_rows,
          "made_from": dict(made_from or {}),
          "arrays": fields,
        }
      )
    )
    self.n_shards = -(-n_rows // shard_rows)
    found = files.read_json(files.below(self.path, layout.LAYOUT))
    if found is None:
      files.write_json(files.below(self.path, layout.LAYOUT), self._layout)
    else:
      _refuse_other(self.path, found, self._layout)
    self._arrays = {}
    with files.writing(self.path):
      for name, field in self._layout["arrays"].items():
        self._arrays[name] = ts.open(
          _spec(self.path, self._layout, name, field), open=True, create=True
        ).result()

  def shard_range(self, shard: int) -> range:
    """The rows of a shard; the last may be shorter."""
    start = shard * self._layout["shard_rows"]
    return range(start, min(start + self._layout["shard_rows"], self._layout["n_rows"]))

  @property
  def done(self) -> set[int]:
    """Shards that are recorded and whose files are all there."""
    there = {key.decode() for key in self._files.list().result()}
    return {
      shard
      for shard in range(self.n_shards)
      if layout.record_name(shard) in there and all(key in there for key in self._keys(shard))
    }

  def write_shard(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes all arrays of a shard, then records it. Returns when both are durable.

    Args:
      shard: index in [0, n_shards).
      arrays: {name: [rows of the shard, …]} for every array of the store, in its dtype.

    Raises:
      NLAError: the disk is full or not writable; complete shards are kept.
    """
    rows = self.shard_range(shard)
    if not 0 <= shard < self.n_shards or set(arrays) != set(self._arrays):
      raise ValueError(
        f"shard {shard} of {self.n_shards} was given {sorted(arrays)}, expected {sorted(self._arrays)}"
      )
    for name, array in self._arrays.items():
      given, wanted = arrays[name], (len(rows), *array.shape[1:])
      if given.shape != wanted or given.dtype != array.dtype.numpy_dtype:
        raise ValueError(
          f"{name} of shard {shard} is {given.dtype}{list(given.shape)}, expected "
          f"{array.dtype.name}{list(wanted)}"
        )
    with files.writing(self.path):
      for key in (layout.record_name(shard), layout.MANIFEST):
        self._files.write(
          key, None
        ).result()  # deletes it: while rewriting, it would vouch for a mixture
      pending = [
        array[rows.start : rows.stop].write(arrays[name]) for name, array in self._arrays.items()
      ]
      for write in pending:
        write.result()
    sums = {name: layout.checksum(arrays[name]) for name in self._arrays}
    files.write_json(
      files.below(self.path, layout.record_name(shard)), {"rows": len(rows), "sha256": sums}
    )

  def write_documents(self, documents: Sequence[StoredDocument]) -> None:
    """Writes the documents that the `document` array's indices mean."""
    parquet = documents_to_parquet(documents)
    with files.writing(self.path + "/" + layout.DOCUMENTS):
      self._files.write(layout.DOCUMENTS, parquet).result()

  def finish(self, fields: Mapping | None = None) -> dict:
    """Writes the manifest, which makes the store readable, and returns it.

    Args:
      fields: JSON values to keep in it (statistics, versions, timing).

    Raises:
      NLAError: a shard or the documents are missing.
    """
    missing = sorted(set(range(self.n_shards)) - self.done)
    if missing:
      raise NLAError(
        f"{self.path} lacks {len(missing)} of {self.n_shards} shards (first: {missing[0]}); run the same "
        "command again to write them"
      )
    documents = self._files.read(layout.DOCUMENTS).result()
    if documents.state != "value":
      raise NLAError(
        f"{self.path} lacks {layout.DOCUMENTS}; run the same command again to write it"
      )
    manifest = {
      **self._layout,
      "documents_sha256": hashlib.sha256(documents.value).hexdigest(),
      "shards": [
        files.read_json(files.below(self.path, layout.record_name(i))) for i in range(self.n_shards)
      ],
    }
    manifest["content_hash"] = hashlib.sha256(
      json.dumps(manifest, sort_keys=True).encode()
    ).hexdigest()
    manifest = {**(fields or {}), **manifest}
    files.write_json(files.below(self.path, layout.MANIFEST), manifest)
    return manifest

  def _keys(self, shard: int) -> list[str]:
    return [layout.shard_name(name, shard, array.rank) for name, array in self._arrays.items()]


class Store:
  """A finished store, read-only. Reads may come from several threads.

  Attributes:
    path: as given.
    manifest: dict; besides the writer's own fields n_rows, shard_rows, chunk_rows, arrays, made_from, content_hash
      (identifies the data for later stages).
    d: width of an activation.

  Raises:
    NLAError: there is no store, it was not finished, or a file of it is missing.
  """

  def __init__(self, path: str):
    self.path = str(path)
    self._files = files.open_files(self.path)
    self.manifest = files.read_json(files.below(self.path, layout.MANIFEST))
    there = {key.decode() for key in self._files.list().result()}
    if self.manifest is None:
      if layout.LAYOUT not in there:
        raise NLAError(f"there is no activation store at {self.path}; make one with `nla extract`")
      written = sum(key.startswith("shards/") for key in there)
      raise NLAError(
        f"the activation store {self.path} was interrupted ({written} shards are written, "
        f"{layout.MANIFEST} is missing); run the same command again to complete it"
      )
    if (self.manifest.get("format"), self.manifest.get("version")) != (
      layout.FORMAT,
      layout.VERSION,
    ):
      raise NLAError(
        f"{self.path}/{layout.MANIFEST} is of {self.manifest.get('format')!r} version "
        f"{self.manifest.get('version')!r}; this program reads {layout.FORMAT!r} version "
        f"{layout.VERSION}"
      )
    for shard in range(len(self.manifest["shards"])):
      for name, field in self.manifest["arrays"].items():
        key = layout.shard_name(name, shard, 1 + len(field["shape"]))
        if key not in there:
          raise NLAError(self._damaged(shard, key, "the file is missing"))
    context = ts.Context({"cache_pool": {"total_bytes_limit": layout.CACHE_BYTES}})
    self._arrays = {name: self._open(name, context) for name in self.manifest["arrays"]}

  def __len__(self) -> int:
    return self.manifest["n_rows"]

  @property
  def d(self) -> int:
    return self.manifest["arrays"]["activations"]["shape"][-1]

  @property
  def names(self) -> tuple[str, ...]:
    """The arrays there are."""
    return tuple(self._arrays)

  def read(self, name: str, rows: np.ndarray | slice | Sequence[int]) -> np.ndarray:
    """Rows of one array, in the order asked for, repeats allowed: [len(rows), …] in the array's dtype.

    Raises:
      NLAError: no such array or row, or a damaged file (its shard and name are given).
    """
    if name not in self._arrays:
      raise NLAError(
        f"the store {self.path} has no array {name!r}; it has {', '.join(self._arrays)}"
      )
    if isinstance(rows, slice):
      start, stop, step = rows.indices(len(self))
      if step == 1:
        return self._fetch(name, slice(start, max(start, stop)))
      rows = np.arange(start, stop, step)
    rows = np.asarray(rows, np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
      raise NLAError(
        f"rows {rows.min()} to {rows.max()} were asked of the store {self.path}, which has rows 0 to "
        f"{len(self) - 1}"
      )
    if not rows.size:
      return self._fetch(name, slice(0, 0))
    return self._fetch(name, rows)

  @functools.cached_property
  def documents(self) -> Documents:
    """All documents; raises NLAError where their file is missing or not what was written."""
    found = self._files.read(layout.DOCUMENTS).result()
    if (
      found.state != "value"
      or hashlib.sha256(found.value).hexdigest() != self.manifest["documents_sha256"]
    ):
      raise NLAError(
        f"{self.path}/{layout.DOCUMENTS} is missing or damaged; delete "
        f"{self.path}/{layout.MANIFEST} and run `nla extract` again: only that file is made anew"
      )
    return Documents(found.value)

  def rows(self, split: str) -> np.ndarray:
    """Row indices of a split, ascending, [n] int64. Raises NLAError for a split that no document has."""
    splits = np.asarray(self.documents.splits)
    if split not in splits:
      raise NLAError(
        f"the store {self.path} has no split {split!r}; it has {', '.join(sorted(set(splits.tolist())))}"
      )
    return np.flatnonzero((splits == split)[self._document])

  def verify(self, shard: int | None = None) -> None:
    """Compares a shard, or all, as it lies on disk with the checksums of what was written.

    Raises:
      NLAError: naming the damaged shard and file.
    """
    arrays = {name: self._open(name, ts.Context()) for name in self._arrays}  # without a cache
    for i in range(len(self.manifest["shards"])) if shard is None else (shard,):
      start, record = i * self.manifest["shard_rows"], self.manifest["shards"][i]
      for name, array in arrays.items():
        found = self._fetch(name, slice(start, start + record["rows"]), array)
        if layout.checksum(found) != record["sha256"][name]:
          raise NLAError(
            self._damaged(i, layout.shard_name(name, i, array.rank), "its checksum differs")
          )

  @functools.cached_property
  def _document(self) -> np.ndarray:
    return self._fetch("document", slice(0, len(self)))

  def _open(self, name: str, context: ts.Context) -> ts.TensorStore:
    try:
      spec = _spec(self.path, self.manifest, name, self.manifest["arrays"][name])
      return ts.open(spec, open=True, read=True, context=context).result()
    except (ValueError, OSError) as error:
      reason = str(error).split(" [tensorstore_spec=")[0]
      raise NLAError(
        f"the array {self.path}/{name} cannot be opened ({reason}); delete the store and extract it "
        "again"
      ) from error

  def _fetch(self, name: str, rows, array: ts.TensorStore | None = None) -> np.ndarray:
    array = self._arrays[name] if array is None else array
    try:
      return array[rows].read().result()
    except (ValueError, OSError) as error:
      reason = str(error).split(" [tensorstore_spec=")[0]
      found = re.search(rf"{re.escape(name)}/c/(\d+)", reason)
      if found is None:
        raise NLAError(f"{self.path}/{name} cannot be read ({reason})") from error
      shard = int(found.group(1))
      key = layout.shard_name(name, shard, array.rank)
      raise NLAError(self._damaged(shard, key, reason.split(": ")[-1])) from error

  def _damaged(self, shard: int, key: str, reason: str) -> str:
    return (
      f"shard {shard} of the activation store is damaged: {self.path}/{key} ({reason}); delete "
      f"{self.path}/{layout.record_name(shard)} and {self.path}/{layout.MANIFEST}, then run "
      "`nla extract` again: only that shard is computed anew"
    )


def _spec(path: str, shape: Mapping, name: str, field: Mapping) -> dict:
  return layout.array_spec(
    path,
    name,
    shape=[shape["n_rows"], *field["shape"]],
    dtype=field["dtype"],
    shard_rows=shape["shard_rows"],
    chunk_rows=shape["chunk_rows"],
  )


def _refuse_other(path: str, found: Mapping, wanted: Mapping) -> None:
  """Raises NLAError naming the first field in which the folder's layout differs from the one asked for."""
  pairs = [(key, found.get(key), wanted[key]) for key in wanted if key != "made_from"]
  old, new = found.get("made_from", {}), wanted["made_from"]
  pairs += [
    (f"made_from.{key}", old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())
  ]
  for key, there, asked in pairs:
    if there != asked:
      raise NLAError(
        f"{path} holds activations whose {key} is {json.dumps(there)}, but {json.dumps(asked)} is asked "
        "for; give another workdir, or delete that folder"
      )
