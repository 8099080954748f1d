"""The activation store: N rows of activations with their document, position and norm, and the documents once.

A folder (or any TensorStore KvStore URL) with

  activations/ [N, d]  document/ [N]  position/ [N]  norm/ [N]  …   zarr3 arrays, one file a shard of rows
  documents.parquet                                                  id, group, split, tokens; source of several
  shards/000000.json …                                               which shards are complete, with their checksums
  layout.json                                                        shapes, and what the rows are made from
  manifest.json                                                      written last; a folder without it is unfinished

`nla_jax.data.store.writer` writes it. Integrity has two layers. TensorStore checks a CRC-32C of each inner chunk (and
of each shard's index) whenever it reads one from disk, so damage is found on read without reading whole shards;
`Store.verify` compares whole shards with the SHA-256 of the bytes that the writer was given.
"""

import functools
import hashlib
import re
from collections.abc import Sequence

import numpy as np
import tensorstore as ts

from nla_jax import bucket, files
from nla_jax.data.store import layout, rounding
from nla_jax.data.store.documents import Documents
from nla_jax.errors import NLAError


class Store:
  """A finished store, read-only. Reads may come from several threads.

  Attributes:
    path: as given.
    manifest: dict; besides the writer's own fields n_rows, shard_rows, chunk_rows, arrays, made_from, content_hash
      (identifies the data for later stages).
    d: width of an activation.
    names: the arrays there are.
    documents: all documents.

  Raises:
    NLAError: there is no store, it was not finished, or a file of it is missing.
  """

  def __init__(self, path: str):
    self.path = str(path)
    self._files = files.open_files(self.path)
    self.manifest = files.read_json(files.below(self.path, layout.MANIFEST))
    with files.reading(self.path):
      there = {key.decode() for key in self._files.list().result()}

    self._refuse_unfinished(there)
    self._refuse_other_format()
    self._refuse_missing_files(there)

    # One cache for all arrays; every store has its own.
    context = ts.Context({"cache_pool": {"total_bytes_limit": layout.CACHE_BYTES}})
    self._arrays = {name: self._open(name, context) for name in self.manifest["arrays"]}

  def __len__(self) -> int:
    return self.manifest["n_rows"]

  @property
  def d(self) -> int:
    """The width of an activation."""
    return self.manifest["arrays"]["activations"]["shape"][-1]

  @property
  def names(self) -> tuple[str, ...]:
    """The arrays there are."""
    return tuple(self._arrays)

  def read(self, name: str, rows: np.ndarray | slice | Sequence[int]) -> np.ndarray:
    """Returns rows of one array, in the order asked for, repeats allowed: [len(rows), …] in the array's dtype.

    Activations are float32, however they are kept.

    Raises:
      NLAError: no such array or row, or a damaged file (its shard and name are given).
    """
    if name not in self._arrays:
      raise NLAError(
        f"the store {self.path} has no array {name!r}; it has {', '.join(self._arrays)}"
      )

    rows = self._asked(rows)
    found = self._fetch(name, rows)
    if name != "activations":
      return found
    scales = self._fetch(rounding.SCALES, rows) if rounding.SCALES in self._arrays else None
    return rounding.restored(found, scales)

  def _asked(self, rows: np.ndarray | slice | Sequence[int]) -> np.ndarray | slice:
    """Rows to fetch. Raises NLAError where one is beyond the store."""
    # A run of rows is read as one range: no index of every row is made.
    if isinstance(rows, slice):
      start, stop, step = rows.indices(len(self))
      if step == 1:
        return slice(start, max(start, stop))
      rows = np.arange(start, stop, step)

    rows = np.asarray(rows, np.int64)
    if not rows.size:
      return slice(0, 0)
    if rows.min() < 0 or rows.max() >= len(self):
      raise NLAError(
        f"rows {rows.min()} to {rows.max()} were asked of the store {self.path}, which has rows 0 to "
        f"{len(self) - 1}"
      )
    return rows

  @functools.cached_property
  def documents(self) -> Documents:
    """All documents. Raises NLAError where their file is missing or not what was written."""
    with files.reading(self.path + "/" + layout.DOCUMENTS):
      found = self._files.read(layout.DOCUMENTS).result()
    whole = (
      found.state == "value"
      and hashlib.sha256(found.value).hexdigest() == self.manifest["documents_sha256"]
    )
    if not whole:
      raise NLAError(
        f"{self.path}/{layout.DOCUMENTS} is missing or damaged; delete "
        f"{self.path}/{layout.MANIFEST} and run `nla extract` again: only that file is made anew"
      )
    return Documents(found.value)

  def rows(self, split: str) -> np.ndarray:
    """Returns the row indices of a split, ascending, [n] int64. Raises NLAError where no document is of the split."""
    splits = np.asarray(self.documents.splits)  # [documents]
    if split not in splits:
      raise NLAError(
        f"the store {self.path} has no split {split!r}; it has {', '.join(sorted(set(splits.tolist())))}"
      )
    return np.flatnonzero((splits == split)[self._document])

  def verify(self, shard: int | None = None) -> None:
    """Compares a shard, or all, as it lies on disk with the checksums of what was written.

    Raises:
      NLAError: a shard is damaged; the message names it and its file.
    """
    # Without a cache, so that the disk is read and not what an earlier read kept.
    arrays = {name: self._open(name, ts.Context()) for name in self._arrays}
    shards = range(len(self.manifest["shards"])) if shard is None else (shard,)

    for i in shards:
      start, record = i * self.manifest["shard_rows"], self.manifest["shards"][i]
      for name, array in arrays.items():
        found = self._fetch(name, slice(start, start + record["rows"]), array)
        if layout.checksum(found) != record["sha256"][name]:
          key = layout.shard_name(name, i, array.rank)
          raise NLAError(self._damaged(i, key, "its checksum differs"))

  @functools.cached_property
  def _document(self) -> np.ndarray:
    return self._fetch("document", slice(0, len(self)))  # [N]

  def _refuse_unfinished(self, there: set[str]) -> None:
    """Raises NLAError where there is no manifest, telling a folder without a store from one that was interrupted."""
    if self.manifest is not None:
      return
    if layout.LAYOUT not in there:
      raise NLAError(f"there is no activation store at {self.path}; make one with `nla extract`")

    written = sum(key.startswith("shards/") for key in there)
    raise NLAError(
      f"the activation store {self.path} was interrupted ({written} shards are written, "
      f"{layout.MANIFEST} is missing); run the same command again to complete it"
    )

  def _refuse_other_format(self) -> None:
    found = self.manifest.get("format"), self.manifest.get("version")
    if found != (layout.FORMAT, layout.VERSION):
      raise NLAError(
        f"{self.path}/{layout.MANIFEST} is of {found[0]!r} version {found[1]!r}; this program reads "
        f"{layout.FORMAT!r} version {layout.VERSION}"
      )

  def _refuse_missing_files(self, there: set[str]) -> None:
    # Told here, at once: TensorStore would read a missing file as rows of zeros.
    for shard in range(len(self.manifest["shards"])):
      for name, field in self.manifest["arrays"].items():
        key = layout.shard_name(name, shard, 1 + len(field["shape"]))
        if key not in there:
          raise NLAError(self._damaged(shard, key, "the file is missing"))

  def _open(self, name: str, context: ts.Context) -> ts.TensorStore:
    spec = layout.array_spec(self.path, self.manifest, name)
    try:
      return ts.open(spec, open=True, read=True, context=context).result()
    except (ValueError, OSError) as error:
      reason = str(error).split(" [tensorstore_spec=")[0]
      self._refuse_silence(name, error)
      raise NLAError(
        f"the array {self.path}/{name} cannot be opened ({reason}); delete the store and extract it "
        "again"
      ) from error

  def _fetch(
    self, name: str, rows: np.ndarray | slice, array: ts.TensorStore | None = None
  ) -> np.ndarray:
    """Reads rows of `array`, or of the store's own; turns damage into an NLAError that names the shard."""
    array = self._arrays[name] if array is None else array
    try:
      return array[rows].read().result()
    except (ValueError, OSError) as error:
      reason = str(error).split(" [tensorstore_spec=")[0]
      self._refuse_silence(name, error)
      # TensorStore's message holds the file's path, and that the number of the shard.
      found = re.search(rf"{re.escape(name)}/c/(\d+)", reason)
      if found is None:
        raise NLAError(f"{self.path}/{name} cannot be read ({reason})") from error
      shard = int(found.group(1))
      key = layout.shard_name(name, shard, array.rank)
      raise NLAError(self._damaged(shard, key, reason.split(": ")[-1])) from error

  def _refuse_silence(self, name: str, error: Exception) -> None:
    """Raises NLAError where a bucket is at fault: to call its rows damaged would have whole ones deleted."""
    if remedy := bucket.advice(self.path, error):
      raise NLAError(
        f"{self.path}/{name} cannot be read ({bucket.reason(error)}); {remedy}"
      ) from error

  def _damaged(self, shard: int, key: str, reason: str) -> str:
    return (
      f"shard {shard} of the activation store is damaged: {self.path}/{key} ({reason}); delete "
      f"{self.path}/{layout.record_name(shard)} and {self.path}/{layout.MANIFEST}, then run "
      "`nla extract` again: only that shard is computed anew"
    )
