"""What a corpus is made of: documents, and the records of a source that documents are parsed from."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from nla_jax.errors import NLAError


@dataclasses.dataclass(frozen=True)
class Document:
  """One text.

  Attributes:
    id: unique in the corpus; seeds the choice of positions.
    text: its words, as they are tokenised.
    group: what splits keep together (an article of which the document is a paragraph); the id where nothing is known.
  """

  id: str
  text: str
  group: str


class Records(NamedTuple):
  """A source before it is parsed. Counting past a record is cheap, so processes can share the parsing.

  Attributes:
    records: (number, record) of each record (an article, a paragraph, a line, a row); numbers ascend.
    documents: gives the documents of a (number, record): none, one, or several.
  """

  records: Iterable[tuple[int, Any]]
  documents: Callable[[int, Any], Iterable[Document]]


def document_of_row(row: dict, default_id: str, place: str) -> Document:
  """Makes a document of a row with `text` and, optionally, `id` and `group`.

  Args:
    row: of Python's own values.
    default_id: where the row has no id.
    place: the source and the row, for the message.

  Raises:
    NLAError: the row has no text.
  """
  text = row.get("text")
  if not isinstance(text, str):
    given = "nothing" if text is None else type(text).__name__
    raise NLAError(f"{place} has {given} as 'text'; every document needs a string there")

  name = default_id if row.get("id") is None else str(row["id"])
  group = name if row.get("group") is None else str(row["group"])
  return Document(name, text, group)


def stem(path: str) -> str:
  """Returns a file's name without its folder and ending; ids of its documents begin with it."""
  return os.path.splitext(os.path.basename(path))[0]


def repeated_id(source: str, name: str) -> NLAError:
  """Returns the error to raise where two documents have one id."""
  return NLAError(f"the corpus {source} has the document id {name!r} twice; ids must be unique")


def no_document(source: str) -> NLAError:
  """Returns the error to raise where there is no document."""
  return NLAError(f"the corpus {source} holds no document; it must have at least one text")
