"""Rows of the tables that people bring, JSON lines and parquet: the one reader of each, for corpora and teachers.

Rows come out unparsed, so that a process that reads its part of a corpus can count past the others' rows cheaply.
Whatever is wrong is told with the file and the line or row. A value that is not there is None, also where it was
written as NaN, as tables with gaps have it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.errors import NLAError, first_line

# Arrow types by what a column is to hold. A column of nulls has a type of its own, and is as good as none.
TEXTS, NUMBERS, NAMES, LISTS = "texts", "numbers", "texts or numbers", "lists"
_BATCH_ROWS = 1024  # rows of a parquet file in memory at once; a row may be a whole book


def text_lines(path: str) -> Iterator[tuple[int, str]]:
  """Yields (line number from 1, line without its end).

  Raises:
    NLAError: the file cannot be read, or is not UTF-8.
  """
  number = 0
  try:
    # utf-8-sig: editors on Windows put a byte order mark first, which is no part of the text.
    with open(path, encoding="utf-8-sig", newline=None) as file:
      for number, line in enumerate(file, 1):
        yield number, line.rstrip("\n")
  except UnicodeDecodeError as error:
    raise NLAError(
      f"{path} is not UTF-8 text (after line {number}: {error.reason}); save it as UTF-8"
    ) from None
  except OSError as error:
    raise NLAError(f"{path} cannot be read: {error.strerror}") from None


def json_lines(path: str) -> Iterator[tuple[int, str]]:
  """Yields (line number from 1, line) of the lines that are not blank; `parse_json_row` parses one.

  Raises:
    NLAError: as `text_lines`.
  """
  return ((number, line) for number, line in text_lines(path) if line.strip())


def parse_json_row(line: str, place: str, example: str) -> dict[str, Any]:
  """Returns the object that a line holds.

  Args:
    line: of a JSON lines file.
    place: the file and the line, for the message.
    example: a line as it should be, for the message.

  Raises:
    NLAError: the line is not JSON, or another value than an object.
  """
  advice = f"give one object a line, such as {example}"
  try:
    row = json.loads(line)
  except json.JSONDecodeError as error:
    raise NLAError(f"{place} is not JSON ({error.msg} at column {error.colno}); {advice}") from None
  except (RecursionError, ValueError) as error:
    # JSON that Python does not read: brackets in brackets, and whole numbers, beyond its limits.
    deep = isinstance(error, RecursionError)
    reason = "brackets too deep" if deep else "a number of too many digits"
    raise NLAError(f"{place} cannot be read as JSON ({reason}); {advice}") from None
  if not isinstance(row, dict):
    raise NLAError(f"{place} is a JSON {type(row).__name__}; {advice}")
  return without_nan(row)


def without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a row with None for each NaN."""
  return {name: None if value != value else value for name, value in row.items()}


def parquet_rows(
  path: str, columns: Mapping[str, str], needed: Mapping[Sequence[str], str]
) -> Iterator[dict[str, pa.Scalar]]:
  """Yields {column: Arrow scalar} of each row; `parse_parquet_row` makes Python's own values of them.

  Args:
    path: of the file.
    columns: {those to read: what they hold, such as TEXTS}; one that the file lacks is left out.
    needed: {columns of which one must be there: what it holds, for the message}.

  Raises:
    NLAError: the file is no parquet file, is damaged, lacks a column that is needed, or has one of another type.
  """
  try:
    with pq.ParquetFile(path) as file:
      names = file.schema_arrow.names
      for wanted, content in needed.items():
        if not set(wanted) & set(names):
          raise NLAError(
            f"{path} has no column {' or '.join(map(repr, wanted))}; its columns are {', '.join(names)}; "
            f"rename the one that holds {content}"
          )

      refuse_types(path, file.schema_arrow, columns)
      there = [name for name in names if name in columns]
      for batch in file.iter_batches(_BATCH_ROWS, columns=there):
        for i in range(batch.num_rows):
          yield {
            name: column[i] for name, column in zip(batch.schema.names, batch.columns, strict=True)
          }
  except (pa.ArrowException, OSError) as error:
    raise NLAError(f"{path} cannot be read as parquet: {first_line(error)}") from None


def refuse_types(path: str, schema: pa.Schema, columns: Mapping[str, str]) -> None:
  """Raises NLAError where a column of a parquet file is of another type than what it is to hold.

  Args:
    path: of the file, for the message.
    schema: of the file.
    columns: {name: what it holds, such as TEXTS}; one that the file lacks is passed over.
  """
  for field in schema:
    wanted = columns.get(field.name)
    if wanted is not None and not _holds(field.type, wanted):
      raise NLAError(
        f"{path} has the column {field.name!r} of type {field.type}; expected {wanted}: write it anew as such"
      )
  twice = [name for name in columns if schema.names.count(name) > 1]
  if twice:
    raise NLAError(f"{path} has {schema.names.count(twice[0])} columns {twice[0]!r}; keep one")


def _holds(kind: pa.DataType, wanted: str) -> bool:
  kind, types = (
    getattr(kind, "value_type", kind) if pa.types.is_dictionary(kind) else kind,
    pa.types,
  )
  if types.is_null(kind):
    return True

  text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
  # A column of whole numbers with gaps is one of floats to many programs.
  number = types.is_integer(kind) or types.is_floating(kind)
  of_lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
  return {TEXTS: text, NUMBERS: number, NAMES: text or number, LISTS: of_lists}[wanted]


def parse_parquet_row(row: Mapping[str, pa.Scalar]) -> dict[str, Any]:
  """Returns {column: Python value} of a row."""
  return without_nan({name: value.as_py() for name, value in row.items()})
