"""Explanations on disk: what a teacher wrote for rows of an activation store, and files of explanations made elsewhere.

A folder (or KvStore URL) with `explanations.parquet` (row int64, explanation string) and `manifest.json`, written last.
"""
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.data import store_files
from nla_jax.errors import NLAError

TABLE = "explanations.parquet"
TEXT_COLUMNS = ("explanation", "api_explanation")


def write_explanations(path: str, rows: np.ndarray, texts: Sequence[str], fields: Mapping | None = None) -> dict:
  """Writes the folder and returns its manifest: `fields`, n_rows and the table's sha256.

  Args:
    path: folder or KvStore URL; made where it is missing, replaced whole where it is not.
    rows: [n] row indices in the activation store, each once.
    texts: [n] explanations, none empty.
    fields: JSON values to keep in the manifest.
  """
  rows = np.asarray(rows, np.int64)
  if rows.shape != (len(texts),) or len(np.unique(rows)) != len(rows):
    raise ValueError(f"{len(texts)} explanations for rows of shape {rows.shape}, {len(np.unique(rows))} distinct")
  empty = next((row for row, text in zip(rows, texts, strict=True) if not text.strip()), None)
  if empty is not None:
    raise NLAError(f"the teacher's explanation of row {empty} is empty; leave the row out or ask the teacher again")
  sink = pa.BufferOutputStream()
  pq.write_table(pa.table({"row": pa.array(rows), "explanation": pa.array(texts, pa.string())}), sink,
                 compression="zstd")
  table = sink.getvalue().to_pybytes()
  manifest = {**(fields or {}), "n_rows": len(rows), "sha256": hashlib.sha256(table).hexdigest()}
  files = store_files.open_files(path)
  with store_files.writing(files.url + TABLE):
    files.write(store_files.MANIFEST, None).result()  # deletes it: the old one would vouch for the new table
    files.write(TABLE, table).result()
  store_files.write_json(files, store_files.MANIFEST, manifest)
  return manifest


def read_manifest(path: str) -> dict:
  """The manifest of an explanations folder. Raises NLAError where there is none."""
  manifest = store_files.read_json(store_files.open_files(path), store_files.MANIFEST)
  if manifest is None:
    raise NLAError(f"there are no finished explanations at {path}; make them with `nla teach`")
  return manifest


def read_explanations(path: str) -> dict[int, str]:
  """{row of the activation store: explanation}. Raises NLAError where the folder is unfinished or damaged."""
  manifest = read_manifest(path)
  found = store_files.open_files(path).read(TABLE).result()
  if found.state != "value" or hashlib.sha256(found.value).hexdigest() != manifest["sha256"]:
    raise NLAError(f"{path}/{TABLE} is missing or damaged; delete {path}/{store_files.MANIFEST} and run `nla teach` "
                   "again")
  table = pq.read_table(io.BytesIO(found.value))
  return dict(zip(table["row"].to_pylist(), table["explanation"].to_pylist(), strict=True))


def read_teacher_file(path: str) -> dict[tuple[str, int], str]:
  """Explanations made elsewhere: {(document id, position): text}.

  Columns of a .parquet file, or keys of each line of a .jsonl file: `doc_id`; `position` (index of the token explained)
  or `n_raw_tokens` (length of the prefix that ends with it, so position + 1); `explanation` or `api_explanation`.

  Raises:
    NLAError: the file cannot be read, lacks a column, or explains one position twice.
  """
  if not os.path.isfile(path):
    raise NLAError(f"the teacher's file {path} does not exist; check --config.teacher.path")
  kind = os.path.splitext(path)[1].lower()
  readers = {".parquet": _parquet_rows, ".jsonl": _json_rows}
  if kind not in readers:
    raise NLAError(f"the teacher's file {path} is neither .parquet nor .jsonl; give one of these")
  texts: dict[tuple[str, int], str] = {}
  for place, row in readers[kind](path):
    place_column = next((name for name in ("position", "n_raw_tokens") if name in row), None)
    text_column = next((name for name in TEXT_COLUMNS if name in row), None)
    if "doc_id" not in row or place_column is None or text_column is None:
      raise NLAError(f"{path} {place} has {', '.join(row) or 'nothing'}; it needs doc_id, position or n_raw_tokens, "
                     f"and {' or '.join(TEXT_COLUMNS)}")
    number, text = row[place_column], row[text_column]
    if isinstance(number, bool) or not isinstance(number, int) or not isinstance(text, str) or not text.strip():
      raise NLAError(f"{path} {place} has {place_column} {number!r} and {text_column} {repr(text)[:40]}; give a whole "
                     "number and a text that is not empty")
    key = (str(row["doc_id"]), number - (place_column == "n_raw_tokens"))
    if key in texts:
      raise NLAError(f"{path} {place} explains position {key[1]} of document {key[0]!r} a second time; keep one")
    texts[key] = text
  if not texts:
    raise NLAError(f"the teacher's file {path} holds no explanation")
  return texts


def match_rows(texts: Mapping[tuple[str, int], str], keys: Iterable[tuple[str, int]], path: str) -> list[str]:
  """The explanation of each (document id, position), in order. Raises NLAError counting those that are missing."""
  keys = list(keys)
  missing = [key for key in keys if key not in texts]
  if missing:
    raise NLAError(f"{path} explains {len(keys) - len(missing)} of the {len(keys)} rows asked for; the first of "
                   f"{len(missing)} missing is position {missing[0][1]} of document {missing[0][0]!r}; add them, or "
                   "extract with the seed, positions and minimum that the file was made with")
  return [texts[key] for key in keys]


def _parquet_rows(path: str) -> Iterable[tuple[str, dict]]:
  number = 0
  try:
    with pq.ParquetFile(path) as file:
      wanted = ("doc_id", "position", "n_raw_tokens", *TEXT_COLUMNS)
      columns = [name for name in file.schema_arrow.names if name in wanted]
      for batch in file.iter_batches(4096, columns=columns):
        for row in batch.to_pylist():
          yield f"row {number}", row
          number += 1
  except (pa.ArrowException, OSError) as error:
    raise NLAError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from None


def _json_rows(path: str) -> Iterable[tuple[str, dict]]:
  try:
    with open(path, encoding="utf-8-sig") as file:
      for number, line in enumerate(file, 1):
        if not line.strip():
          continue
        row = json.loads(line)
        if not isinstance(row, dict):
          raise NLAError(f"{path} line {number} is a JSON {type(row).__name__}; give one object a line")
        yield f"line {number}", row
  except json.JSONDecodeError as error:
    raise NLAError(f"{path} line {number} is not JSON ({error.msg}); give one object a line") from None
  except (OSError, UnicodeDecodeError) as error:
    raise NLAError(f"{path} cannot be read: {error}") from None
