"""The files of an activation store: their names, their checksums, and how a zarr3 array is laid out.

Every write goes through a TensorStore KvStore, so a store may lie on any of them (a plain path, file://, gs://, s3://),
and each file is replaced whole (on a disk: written beside, synced, renamed) or not at all.
"""

import hashlib
from collections.abc import Mapping

import ml_dtypes  # noqa: F401  (numpy learns the name "bfloat16" from it)
import numpy as np

from nla_jax import files

LAYOUT, MANIFEST, DOCUMENTS = "layout.json", "manifest.json", "documents.parquet"
FORMAT, VERSION = "nla_activations", 1

# A store of a small model fits whole; random rows of a large one gain nothing from more.
CACHE_BYTES = 256 << 20

_BYTES = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"})


def record_name(shard: int) -> str:
  """Returns the key of the record that says that a shard is complete."""
  return f"shards/{shard:06d}.json"


def shard_name(array: str, shard: int, rank: int) -> str:
  """Returns the key of the file that holds one shard of an array of `rank` dimensions."""
  return "/".join([array, "c", str(shard), *["0"] * (rank - 1)])


def checksum(array: np.ndarray) -> str:
  """Returns the SHA-256, in hexadecimal, of an array's raw bytes in C order."""
  return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


def array_spec(path: str, layout: Mapping, name: str) -> dict:
  """Returns the TensorStore spec of one array: zarr3, a file per shard, a CRC-32C per chunk of rows.

  Args:
    path: folder or KvStore URL of the store.
    layout: what layout.json holds; the manifest holds the same fields.
    name: of the array.
  """
  field = layout["arrays"][name]
  row_shape = field["shape"]

  shards = {"chunk_shape": [layout["shard_rows"], *row_shape]}
  chunks = {
    "chunk_shape": [layout["chunk_rows"], *row_shape],
    "codecs": _BYTES,
    "index_codecs": _BYTES,
    "index_location": "end",
  }
  metadata = {
    "shape": [layout["n_rows"], *row_shape],
    "data_type": field["dtype"],
    "chunk_grid": {"name": "regular", "configuration": shards},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [{"name": "sharding_indexed", "configuration": chunks}],
  }

  return {
    "driver": "zarr3",
    "kvstore": files.spec_of(path, name + "/"),
    "recheck_cached_data": "open",
    # A chunk of zeros is written like any other, so a missing file is always damage and never a default.
    "store_data_equal_to_fill_value": True,
    "metadata": metadata,
  }
