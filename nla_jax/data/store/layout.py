"""The files of an activation store: where they lie, how a zarr3 array is laid out, how documents are kept.

Every write goes through a TensorStore KvStore, so a store may lie on any of them (a plain path, file://, gs://, s3://),
and each file is replaced whole (on a disk: written beside, synced, renamed) or not at all.
"""

import hashlib
from collections.abc import Sequence

import ml_dtypes  # noqa: F401  (numpy learns the name "bfloat16" from it)
import numpy as np

from nla_jax import files

LAYOUT, MANIFEST, DOCUMENTS = "layout.json", "manifest.json", "documents.parquet"
FORMAT, VERSION = "nla_activations", 1
CACHE_BYTES = (
  256 << 20
)  # a store of a small model fits whole; random rows of a large one gain nothing from more

_BYTES = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"})


def record_name(shard: int) -> str:
  """Key of the record that says that a shard is complete."""
  return f"shards/{shard:06d}.json"


def shard_name(array: str, shard: int, rank: int) -> str:
  """Key of the file that holds one shard of an array of `rank` dimensions."""
  return "/".join([array, "c", str(shard), *["0"] * (rank - 1)])


def checksum(array: np.ndarray) -> str:
  """SHA-256 of an array's raw bytes in C order, hexadecimal."""
  return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


def array_spec(
  path: str, name: str, *, shape: Sequence[int], dtype: str, shard_rows: int, chunk_rows: int
) -> dict:
  """zarr3 spec of an [N, …] array: a file per `shard_rows` rows, a CRC-32C per `chunk_rows` rows.

  A chunk of zeros is written like any other, so a missing file is always damage and never a default.
  """
  tail = list(shape[1:])
  regular = lambda rows: {"name": "regular", "configuration": {"chunk_shape": [rows, *tail]}}
  sharding = {
    "chunk_shape": [chunk_rows, *tail],
    "codecs": _BYTES,
    "index_codecs": _BYTES,
    "index_location": "end",
  }
  return {
    "driver": "zarr3",
    "kvstore": files.spec_of(path, name + "/"),
    "recheck_cached_data": "open",
    "store_data_equal_to_fill_value": True,
    "metadata": {
      "shape": list(shape),
      "data_type": dtype,
      "chunk_grid": regular(shard_rows),
      "chunk_key_encoding": {"name": "default"},
      "fill_value": 0,
      "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    },
  }
