"""Rows of the tables that people bring, JSON lines and parquet: the one reader of each, for corpora and teachers.

Rows come out unparsed, so that a process that reads its part of a corpus can count past the others' rows cheaply.
Whatever is wrong is told with the file and the line or row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.errors import NLAError

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
  if not isinstance(row, dict):
    raise NLAError(f"{place} is a JSON {type(row).__name__}; {advice}")
  return row


def parquet_rows(
  path: str, columns: Sequence[str], needed: Mapping[Sequence[str], str]
) -> Iterator[dict[str, pa.Scalar]]:
  """Yields {column: Arrow scalar} of each row; `parse_parquet_row` makes Python's own values of them.

  Args:
    path: of the file.
    columns: those to read; one that the file lacks is left out.
    needed: {columns of which one must be there: what it holds, for the message}.

  Raises:
    NLAError: the file is no parquet file, is damaged, or lacks a column that is needed.
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

      there = [name for name in names if name in columns]
      for batch in file.iter_batches(_BATCH_ROWS, columns=there):
        for i in range(batch.num_rows):
          yield {
            name: column[i] for name, column in zip(batch.schema.names, batch.columns, strict=True)
          }
  except (pa.ArrowException, OSError) as error:
    raise NLAError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from None


def parse_parquet_row(row: Mapping[str, pa.Scalar]) -> dict[str, Any]:
  """Returns {column: Python value} of a row."""
  return {name: value.as_py() for name, value in row.items()}
