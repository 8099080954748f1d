"""The teacher that was asked elsewhere: explanations from a parquet or JSON lines file."""

import json
import os
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.errors import NLAError

TEXT_COLUMNS = ("explanation", "api_explanation")


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
      raise NLAError(
        f"{path} {place} has {', '.join(row) or 'nothing'}; it needs doc_id, position or n_raw_tokens, "
        f"and {' or '.join(TEXT_COLUMNS)}"
      )
    number, text = row[place_column], row[text_column]
    if (
      isinstance(number, bool)
      or not isinstance(number, int)
      or not isinstance(text, str)
      or not text.strip()
    ):
      raise NLAError(
        f"{path} {place} has {place_column} {number!r} and {text_column} {repr(text)[:40]}; give a whole "
        "number and a text that is not empty"
      )
    key = (str(row["doc_id"]), number - (place_column == "n_raw_tokens"))
    if key in texts:
      raise NLAError(
        f"{path} {place} explains position {key[1]} of document {key[0]!r} a second time; keep one"
      )
    texts[key] = text
  if not texts:
    raise NLAError(f"the teacher's file {path} holds no explanation")
  return texts


def match_rows(
  texts: Mapping[tuple[str, int], str], keys: Iterable[tuple[str, int]], path: str
) -> list[str]:
  """The explanation of each (document id, position), in order. Raises NLAError counting those that are missing."""
  keys = list(keys)
  missing = [key for key in keys if key not in texts]
  if missing:
    raise NLAError(
      f"{path} explains {len(keys) - len(missing)} of the {len(keys)} rows asked for; the first of "
      f"{len(missing)} missing is position {missing[0][1]} of document {missing[0][0]!r}; add them, or "
      "extract with the seed, positions and minimum that the file was made with"
    )
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
          raise NLAError(
            f"{path} line {number} is a JSON {type(row).__name__}; give one object a line"
          )
        yield f"line {number}", row
  except json.JSONDecodeError as error:
    raise NLAError(
      f"{path} line {number} is not JSON ({error.msg}); give one object a line"
    ) from None
  except (OSError, UnicodeDecodeError) as error:
    raise NLAError(f"{path} cannot be read: {error}") from None
