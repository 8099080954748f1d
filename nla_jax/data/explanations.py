"""The folder of explanations on disk: what a teacher wrote for rows of an activation store.

A folder (or KvStore URL) with `explanations.parquet` (row int64, explanation string) and `manifest.json`, written last.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax import files
from nla_jax.data.store import layout
from nla_jax.errors import NLAError

TABLE = "explanations.parquet"


def write_explanations(
  path: str, rows: np.ndarray, texts: Sequence[str], fields: Mapping | None = None
) -> dict:
  """Writes the folder and returns its manifest: `fields`, n_rows and the table's sha256.

  Args:
    path: folder or KvStore URL; made where it is missing, replaced whole where it is not.
    rows: [n] row indices in the activation store, each once.
    texts: [n] explanations, none empty.
    fields: JSON values to keep in the manifest.

  Raises:
    NLAError: an explanation is empty, or the folder cannot be written.
    ValueError: there is not one explanation a row, or a row occurs twice.
  """
  rows = np.asarray(rows, np.int64)
  if rows.shape != (len(texts),) or len(np.unique(rows)) != len(rows):
    raise ValueError(
      f"{len(texts)} explanations for rows of shape {rows.shape}, {len(np.unique(rows))} distinct"
    )
  empty = next((row for row, text in zip(rows, texts, strict=True) if not text.strip()), None)
  if empty is not None:
    raise NLAError(
      f"the teacher's explanation of row {empty} is empty; leave the row out or ask the teacher again"
    )

  columns = {"row": pa.array(rows), "explanation": pa.array(texts, pa.string())}
  sink = pa.BufferOutputStream()
  pq.write_table(pa.table(columns), sink, compression="zstd")
  table = sink.getvalue().to_pybytes()

  store = files.open_files(path)
  with files.writing(files.below(path, TABLE)):
    # The old manifest goes first: it would vouch for the new table.
    store.write(layout.MANIFEST, None).result()
    store.write(TABLE, table).result()

  manifest = {**(fields or {}), "n_rows": len(rows), "sha256": hashlib.sha256(table).hexdigest()}
  files.write_json(files.below(path, layout.MANIFEST), manifest)
  return manifest


def read_manifest(path: str) -> dict:
  """Returns the manifest of an explanations folder. Raises NLAError where there is none."""
  manifest = files.read_json(files.below(path, layout.MANIFEST))
  if manifest is None:
    raise NLAError(f"there are no finished explanations at {path}; make them with `nla teach`")
  return manifest


def read_explanations(path: str) -> dict[int, str]:
  """Returns {row of the activation store: explanation}.

  Raises:
    NLAError: the folder is unfinished or damaged.
  """
  manifest = read_manifest(path)
  with files.reading(path):
    found = files.open_files(path).read(TABLE).result()

  if found.state != "value" or hashlib.sha256(found.value).hexdigest() != manifest["sha256"]:
    raise NLAError(
      f"{path}/{TABLE} is missing or damaged; delete {path}/{layout.MANIFEST} and run `nla teach` "
      "again"
    )

  table = pq.read_table(io.BytesIO(found.value))
  return dict(zip(table["row"].to_pylist(), table["explanation"].to_pylist(), strict=True))
