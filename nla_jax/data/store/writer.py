"""Writing an activation store: shard by shard, so that an interruption costs at most the shards in flight.

A shard counts only once its record is there, and the record is written after every array's file. A process killed at
any moment therefore leaves complete, recorded shards and at most some files that the next run writes again. What the
files are: see `nla_jax.data.store.store`.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorstore as ts

from nla_jax import files
from nla_jax.data.store import layout
from nla_jax.data.store.documents import StoredDocument, known_columns, write_parquet
from nla_jax.errors import NLAError

ArraySpecs = Mapping[str, tuple[tuple[int, ...], str]]


class StoreWriter:
  """Writes a store of known size. Opens the folder anew, or resumes a store that was interrupted.

  Several processes may hold a writer of one path and write different shards; one of them calls `write_documents` and
  `finish`. `write_shard` may be called from several threads for different shards.

  Args:
    path: folder or KvStore URL; made where it is missing.
    arrays: {name: (shape of a row, dtype)}, such as {"activations": ((576,), "float32"), "document": ((), "int32")}.
    n_rows: N, the rows of the whole store.
    shard_rows: rows a file; a multiple of `chunk_rows`.
    chunk_rows: rows read together.
    made_from: JSON values that identify the rows (model hash, layer, corpus, seed); a folder with others is refused.

  Attributes:
    path: as given.
    arrays: as given.
    n_shards: files that each array is cut into.

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
    _refuse_sizes(path, n_rows, shard_rows, chunk_rows)
    fields = {
      name: {"shape": list(row_shape), "dtype": np.dtype(dtype).name}
      for name, (row_shape, dtype) in arrays.items()
    }
    wanted = {
      "format": layout.FORMAT,
      "version": layout.VERSION,
      "n_rows": n_rows,
      "shard_rows": shard_rows,
      "chunk_rows": chunk_rows,
      "made_from": dict(made_from or {}),
      "arrays": fields,
    }

    self.path, self.arrays = str(path), arrays
    self.n_shards = -(-n_rows // shard_rows)
    self._files = files.open_files(self.path)
    # Through JSON and back, so that it compares equal to what the file holds (tuples come back as lists).
    self._layout = json.loads(json.dumps(wanted))

    found = files.read_json(files.below(self.path, layout.LAYOUT))
    if found is None:
      files.write_json(files.below(self.path, layout.LAYOUT), self._layout)
    else:
      _refuse_other(self.path, found, self._layout)

    self._arrays = {}
    with files.writing(self.path):
      for name in self._layout["arrays"]:
        spec = layout.array_spec(self.path, self._layout, name)
        self._arrays[name] = ts.open(spec, open=True, create=True).result()

  def shard_range(self, shard: int) -> range:
    """Returns the rows of a shard; the last shard may be shorter."""
    start = shard * self._layout["shard_rows"]
    return range(start, min(start + self._layout["shard_rows"], self._layout["n_rows"]))

  @property
  def done(self) -> set[int]:
    """Shards that are recorded and whose files are all there."""
    # Listed once: asking a bucket for every file by itself would take a request a file.
    with files.reading(self.path):
      there = {key.decode() for key in self._files.list().result()}

    done = set()
    for shard in range(self.n_shards):
      keys = [layout.shard_name(name, shard, array.rank) for name, array in self._arrays.items()]
      if there.issuperset([layout.record_name(shard), *keys]):
        done.add(shard)
    return done

  def write_shard(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes all arrays of a shard, then records it. Returns when both are durable.

    Args:
      shard: index in [0, n_shards).
      arrays: {name: [rows of the shard, …]} for every array of the store, in its dtype.

    Raises:
      NLAError: the disk is full or not writable; complete shards are kept.
      ValueError: an array is missing or has another shape or dtype.
    """
    rows = self.shard_range(shard)
    self._refuse_arrays(shard, arrays)

    with files.writing(self.path):
      # Both are deleted first: while the shard is written again, they would vouch for a mixture.
      for key in (layout.record_name(shard), layout.MANIFEST):
        self._files.write(key, None).result()

      pending = [
        array[rows.start : rows.stop].write(arrays[name]) for name, array in self._arrays.items()
      ]
      # While the disk is at work, which takes as long.
      sums = {name: layout.checksum(arrays[name]) for name in self._arrays}
      for write in pending:
        write.result()

    # Only now, after every file is durable: the record is what makes the shard count.
    files.write_json(
      files.below(self.path, layout.record_name(shard)), {"rows": len(rows), "sha256": sums}
    )

  def read(self, name: str, shard: int) -> np.ndarray:
    """Returns the rows of one array in a shard that is written: for sums over a store that is not yet closed."""
    rows = self.shard_range(shard)
    return self._arrays[name][rows.start : rows.stop].read().result()

  def write_documents(
    self, documents: Sequence[StoredDocument], columns: Collection[str] | None = None
  ) -> None:
    """Writes the documents that the `document` array's indices mean, a few thousand in memory at once.

    Args:
      documents: of the store, in order.
      columns: which of source and roles they have; None looks through them.
    """
    columns = known_columns(documents) if columns is None else columns
    with files.new_file(files.below(self.path, layout.DOCUMENTS)) as sink:
      write_parquet(documents, sink, columns)

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
    documents = files.sha256(files.below(self.path, layout.DOCUMENTS))
    if documents is None:
      raise NLAError(
        f"{self.path} lacks {layout.DOCUMENTS}; run the same command again to write it"
      )

    records = [
      files.read_json(files.below(self.path, layout.record_name(shard)))
      for shard in range(self.n_shards)
    ]
    content = {
      **self._layout,
      "documents_sha256": documents,
      "shards": records,
    }
    # Of the content alone: `fields` may hold times, and later stages compare this hash to know the same data.
    content_hash = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    manifest = {**(fields or {}), **content, "content_hash": content_hash}
    files.write_json(files.below(self.path, layout.MANIFEST), manifest)
    return manifest

  def _refuse_arrays(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where a shard does not exist, or its arrays are not those of the store."""
    if not 0 <= shard < self.n_shards or set(arrays) != set(self._arrays):
      raise ValueError(
        f"shard {shard} of {self.n_shards} was given {sorted(arrays)}, expected {sorted(self._arrays)}"
      )

    rows = self.shard_range(shard)
    for name, array in self._arrays.items():
      given, shape = arrays[name], (len(rows), *array.shape[1:])
      if given.shape != shape or given.dtype != array.dtype.numpy_dtype:
        raise ValueError(
          f"{name} of shard {shard} is {given.dtype}{list(given.shape)}, expected "
          f"{array.dtype.name}{list(shape)}"
        )


def _refuse_sizes(path: str, n_rows: int, shard_rows: int, chunk_rows: int) -> None:
  """Raises NLAError where there would be no row, or shards that are not whole chunks."""
  if n_rows < 1:
    raise NLAError(f"a store of {n_rows} rows was asked for at {path}; there must be at least 1")
  if chunk_rows < 1 or shard_rows < 1 or shard_rows % chunk_rows:
    raise NLAError(
      f"shards of {shard_rows} rows cannot be cut into chunks of {chunk_rows}; make "
      "shard_rows a multiple of chunk_rows"
    )


def _refuse_other(path: str, found: Mapping, wanted: Mapping) -> None:
  """Raises NLAError naming the first field in which the folder's layout differs from the one asked for."""
  pairs = [(key, found.get(key), wanted[key]) for key in wanted if key != "made_from"]

  # Of `made_from` each value by itself: "made_from.layer is 20, but 21" says more than two dicts.
  old, new = found.get("made_from", {}), wanted["made_from"]
  for key in sorted(old.keys() | new.keys()):
    pairs.append((f"made_from.{key}", old.get(key), new.get(key)))

  for key, there, asked in pairs:
    if there != asked:
      raise NLAError(
        f"{path} holds activations whose {key} is {json.dumps(there)}, but {json.dumps(asked)} is asked "
        "for; give another workdir, or delete that folder"
      )
