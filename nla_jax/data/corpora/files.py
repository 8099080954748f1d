"""Corpora in files: paragraphs of plain text, JSON lines, parquet."""

from collections.abc import Iterator

from nla_jax.conversation.messages import KEYS
from nla_jax.data import tables
from nla_jax.data.corpora.document import (
  CONTENT,
  IDS,
  USERS,
  Document,
  Records,
  document_of_row,
  stem,
)

_JSON_EXAMPLE = '{"text": "…"}'


def read_text(path: str) -> Records:
  """Returns the records of a .txt file: its paragraphs, a document each."""

  def document(number: int, paragraph: list[str]) -> list[Document]:
    name = f"{stem(path)}#{number}"
    return [Document(name, "\n".join(paragraph), name)]

  return Records(enumerate(_paragraphs(path)), document)


def _paragraphs(path: str) -> Iterator[list[str]]:
  """Yields the lines of each paragraph; blank lines part paragraphs."""
  paragraph = []
  for _, line in tables.text_lines(path):
    if line.strip():
      paragraph.append(line)
    elif paragraph:
      yield paragraph
      paragraph = []

  # The last paragraph needs no blank line after it.
  if paragraph:
    yield paragraph


def read_json_lines(path: str) -> Records:
  """Returns the records of a .jsonl file: its lines, numbered from 1, a document each."""

  def document(number: int, line: str) -> list[Document]:
    place = f"{path} line {number}"
    row = tables.parse_json_row(line, place, _JSON_EXAMPLE)
    return [document_of_row(row, f"{stem(path)}#{number}", place)]

  return Records(tables.json_lines(path), document)


def read_parquet(path: str) -> Records:
  """Returns the records of a .parquet file: its rows, numbered from 0, a document each."""

  def document(number: int, row: dict) -> list[Document]:
    place = f"{path} row {number}"
    return [document_of_row(tables.parse_parquet_row(row), f"{stem(path)}#{number}", place)]

  columns = {
    "text": tables.TEXTS,
    **dict.fromkeys(KEYS, tables.LISTS),
    **dict.fromkeys((*IDS, *USERS, "group"), tables.NAMES),
  }
  rows = tables.parquet_rows(path, columns, needed={CONTENT: "the documents"})
  return Records(enumerate(rows), document)
