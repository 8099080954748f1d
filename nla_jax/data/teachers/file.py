"""The teacher that was asked elsewhere: explanations from a parquet or JSON lines file."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nla_jax import files
from nla_jax.autoencoder.text import well_formed
from nla_jax.data import tables
from nla_jax.errors import NLAError, shown

TEXT_COLUMNS = ("explanation", "api_explanation")
_PLACE_COLUMNS = ("position", "n_raw_tokens")
_JSON_EXAMPLE = '{"doc_id": "…", "position": 60, "explanation": "…"}'


def read_teacher_file(path: str) -> dict[tuple[str, int], str]:
  """Returns explanations made elsewhere: {(document id, position): text}.

  Columns of a .parquet file, or keys of each line of a .jsonl file: `doc_id`; `position` (index of the token explained)
  or `n_raw_tokens` (length of the prefix that ends with it, so position + 1); `explanation` or `api_explanation`.

  Raises:
    NLAError: the file cannot be read, lacks a column, or explains one position twice.
  """
  path = files.expect_file(path, "the teacher's file", "check --config.teacher.path")
  readers = {".parquet": _parquet_rows, ".jsonl": _json_rows}
  reader = readers.get(os.path.splitext(path)[1].lower())
  if reader is None:
    raise NLAError(f"the teacher's file {path} is neither .parquet nor .jsonl; give one of these")

  texts: dict[tuple[str, int], str] = {}
  for place, row in reader(path):
    key, text = _parse(row, place)
    if key in texts:
      raise NLAError(
        f"{place} explains position {key[1]} of document {shown(key[0])} a second time; keep one"
      )
    texts[key] = text

  if not texts:
    raise NLAError(f"the teacher's file {path} holds no explanation")
  return texts


def match_rows(
  texts: Mapping[tuple[str, int], str], keys: Iterable[tuple[str, int]], path: str
) -> list[str]:
  """Returns the explanation of each (document id, position), in order.

  Args:
    texts: of `read_teacher_file`.
    keys: (document id, position) of the rows to explain.
    path: of the teacher's file, for the message.

  Raises:
    NLAError: rows are not explained; the message counts them and names the first.
  """
  keys = list(keys)
  missing = [key for key in keys if key not in texts]
  if missing:
    raise NLAError(
      f"{path} explains {len(keys) - len(missing)} of the {len(keys)} rows asked for; the first of "
      f"{len(missing)} missing is position {missing[0][1]} of document {shown(missing[0][0])}; add them, or "
      "extract with the seed, positions and minimum that the file was made with"
    )
  return [texts[key] for key in keys]


def _parse(row: Mapping[str, Any], place: str) -> tuple[tuple[str, int], str]:
  """Returns ((document id, position), text) of a row. Raises NLAError where it lacks one of them."""
  place_column = next((name for name in _PLACE_COLUMNS if name in row), None)
  text_column = next((name for name in TEXT_COLUMNS if name in row), None)
  if row.get("doc_id") is None or place_column is None or text_column is None:
    raise NLAError(
      f"{place} has {', '.join(map(shown, list(row)[:9])) or 'nothing'}; it needs doc_id, position or n_raw_tokens, "
      f"and {' or '.join(TEXT_COLUMNS)}"
    )

  number, text = row[place_column], row[text_column]
  # JSON's true and false are whole numbers to Python. A prefix of 0 tokens has no last one.
  least = 1 if place_column == "n_raw_tokens" else 0
  is_number = isinstance(number, int) and not isinstance(number, bool) and number >= least
  if not is_number or not isinstance(text, str) or not text.strip():
    raise NLAError(
      f"{place} has {place_column} {shown(number)} and {text_column} {shown(text)}; give a whole "
      f"number of at least {least} and a text that is not empty"
    )

  # n_raw_tokens counts the token that is explained, so it is one more than its index.
  position = number - 1 if place_column == "n_raw_tokens" else number
  if isinstance(row["doc_id"], (dict, list)):
    raise NLAError(
      f"{place} has {type(row['doc_id']).__name__} as 'doc_id'; give a string or a number"
    )
  name = well_formed(str(row["doc_id"]), f"the doc_id of {place}")
  return (name, position), well_formed(text, f"the {text_column} of {place}")


def _parquet_rows(path: str) -> Iterator[tuple[str, dict]]:
  columns = {
    "doc_id": tables.NAMES,
    **dict.fromkeys(_PLACE_COLUMNS, tables.NUMBERS),
    **dict.fromkeys(TEXT_COLUMNS, tables.TEXTS),
  }
  # No column is needed by name: which spelling is missing is told by the row.
  for number, row in enumerate(tables.parquet_rows(path, columns, needed={})):
    yield f"{path} row {number}", tables.parse_parquet_row(row)


def _json_rows(path: str) -> Iterator[tuple[str, dict]]:
  for number, line in tables.json_lines(path):
    place = f"{path} line {number}"
    yield place, tables.parse_json_row(line, place, _JSON_EXAMPLE)
