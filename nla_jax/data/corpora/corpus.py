"""Documents to take activations from. Bad input fails before the first document, or with the line it stands on."""

import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from nla_jax.data.corpora import wikipedia
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


class _Records(NamedTuple):
  """A source as records, cheap to count past, and how a record becomes its documents: none, one, or several."""

  records: Iterable[tuple[int, Any]]  # (number, ascending; record)
  documents: Callable[[int, Any], Iterable[Document]]


def read_corpus(source: str, *, max_documents: int | None = None) -> Iterator[Document]:
  """The documents of `source`, in a fixed order.

  Sources:
    "wikipedia-sample": prose paragraphs of English Wikipedia from the installed `gensim`; a group is an article.
    "*.txt": one document a paragraph (paragraphs are separated by blank lines), ids "{file's stem}#{i}".
    "*.jsonl": one object a line with `text`, optionally `id` and `group`.
    "*.parquet": a column `text`, optionally `id` and `group`.
    "hf://name[@subset][:split]": a data set on the hub (or a folder of one) through `datasets`, streamed; columns as
      for parquet; the split is `train` where none is given.

  Args:
    source: see above.
    max_documents: stop after so many; None for all.

  Raises:
    NLAError: at once where the source or the package that reads it is missing; while reading where a line or row is
      no document, an id occurs twice, or there is no document at all.
  """
  if max_documents is not None and max_documents < 1:
    raise NLAError(
      f"max_documents is {max_documents}; give a number of at least 1, or None for the whole corpus"
    )
  return (document for _, document in _checked(_parse(_open(source), 0, 1), source, max_documents))


def read_part(source: str, index: int, count: int) -> Iterator[tuple[int, Document]]:
  """Part `index` of `count` of a corpus, as (number of the record, document).

  A record is what a source is made of (an article, a paragraph, a line, a row); every count-th is this part's, and
  only those are parsed. All parts, sorted by the record's number, are `read_corpus`. A part may be empty, and ids are
  unique within it.
  """
  return _checked(_parse(_open(source), index, count), source, None, may_be_empty=True)


def _parse(source: _Records, index: int, count: int) -> Iterator[tuple[int, Document]]:
  for place, (number, record) in enumerate(source.records):
    if place % count == index:
      for document in source.documents(number, record):
        yield number, document


def _open(source: str) -> _Records:
  if source == "wikipedia-sample":
    if importlib.util.find_spec("mwparserfromhell") is None:
      raise NLAError(
        "the corpus 'wikipedia-sample' is cleaned with the Python package mwparserfromhell, which is not "
        "installed; install the extra `demo` (pip install 'nla_jax[demo]')"
      )
    return _Records(enumerate(wikipedia.read_pages(wikipedia.sample_path())), _article)
  if source.startswith("hf://"):
    return _hub(source)
  readers = {".txt": _text_file, ".jsonl": _json_lines, ".parquet": _parquet}
  reader = readers.get(os.path.splitext(source)[1].lower())
  if reader is None:
    raise NLAError(
      f"the corpus {source!r} is no known kind; give 'wikipedia-sample', a .txt, .jsonl or .parquet file, "
      "or hf://name[@subset][:split]"
    )
  if not os.path.isfile(source):
    raise NLAError(f"the corpus file {source} does not exist; check --config.corpus")
  if not os.access(source, os.R_OK):
    raise NLAError(f"the corpus file {source} may not be read by this user; change its permissions")
  return reader(source)


def _checked(
  documents: Iterable[tuple[int, Document]],
  source: str,
  limit: int | None,
  may_be_empty: bool = False,
) -> Iterator[tuple[int, Document]]:
  seen = set()
  for number, document in documents:
    if document.id in seen:
      raise twice(source, document.id)
    seen.add(document.id)
    yield number, document
    if len(seen) == limit:
      return
  if not seen and not may_be_empty:
    raise nothing(source)


def twice(source: str, name: str) -> NLAError:
  """What to raise where two documents have one id."""
  return NLAError(f"the corpus {source} has the document id {name!r} twice; ids must be unique")


def nothing(source: str) -> NLAError:
  """What to raise where there is no document."""
  return NLAError(f"the corpus {source} holds no document; it must have at least one text")


def _article(_: int, page: tuple[str, str]) -> Iterator[Document]:
  title, wikitext = page
  for i, paragraph in enumerate(wikipedia.paragraphs(wikitext)):
    yield Document(f"{title}#{i}", paragraph, title)


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path))[0]


def _lines(path: str) -> Iterator[tuple[int, str]]:
  """(line number from 1, line without its end)."""
  number = 0
  try:
    with open(path, encoding="utf-8-sig", newline=None) as file:
      for number, line in enumerate(file, 1):
        yield number, line.rstrip("\n")
  except UnicodeDecodeError as error:
    raise NLAError(
      f"{path} is not UTF-8 text (after line {number}: {error.reason}); save it as UTF-8"
    ) from None
  except OSError as error:
    raise NLAError(f"{path} cannot be read: {error.strerror}") from None


def _text_file(path: str) -> _Records:
  def document(number: int, paragraph: list[str]) -> list[Document]:
    name = f"{_stem(path)}#{number}"
    return [Document(name, "\n".join(paragraph), name)]

  return _Records(enumerate(_paragraphs(path)), document)


def _paragraphs(path: str) -> Iterator[list[str]]:
  paragraph = []
  for _, line in (*_lines(path), (0, "")):
    if line.strip():
      paragraph.append(line)
    elif paragraph:
      yield paragraph
      paragraph = []


def _json_lines(path: str) -> _Records:
  def document(number: int, line: str) -> list[Document]:
    place = f"{path} line {number}"
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise NLAError(
        f"{place} is not JSON ({error.msg} at column {error.colno}); give one object a line, such as "
        '{"text": "…"}'
      ) from None
    if not isinstance(row, dict):
      raise NLAError(
        f'{place} is a JSON {type(row).__name__}; give one object a line, such as {{"text": "…"}}'
      )
    return [_from_row(row, f"{_stem(path)}#{number}", place)]

  return _Records(((number, line) for number, line in _lines(path) if line.strip()), document)


def _parquet(path: str) -> _Records:
  def document(number: int, row) -> list[Document]:
    return [
      _from_row(
        {name: value.as_py() for name, value in row.items()},
        f"{_stem(path)}#{number}",
        f"{path} row {number}",
      )
    ]

  return _Records(enumerate(_parquet_rows(path)), document)


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
  """{column: Arrow scalar} of each row; the values become Python's own only where somebody asks."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    with pq.ParquetFile(path) as file:
      columns = file.schema_arrow.names
      if "text" not in columns:
        raise NLAError(
          f"{path} has no column 'text'; its columns are {', '.join(columns)}; rename the one that holds "
          "the documents"
        )
      for batch in file.iter_batches(
        1024, columns=[name for name in ("text", "id", "group") if name in columns]
      ):
        for values in zip(*batch.columns, strict=True):
          yield dict(zip(batch.schema.names, values, strict=True))
  except (pa.ArrowException, OSError) as error:
    raise NLAError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from None


def _hub(source: str) -> _Records:
  if importlib.util.find_spec("datasets") is None:
    raise NLAError(
      f"the corpus {source} is read with the Python package datasets, which is not installed; "
      "pip install datasets"
    )
  import datasets

  # A split never holds a slash, so a colon before the last slash belongs to a path.
  head, colon, split = source.removeprefix("hf://").rpartition(":")
  name, split = (
    (head, split) if colon and "/" not in split else (source.removeprefix("hf://"), "train")
  )
  name, _, subset = name.partition("@")
  if not name or not split:
    raise NLAError(
      f"the corpus {source!r} is incomplete; write hf://name, hf://name:split or hf://name@subset:split"
    )
  try:
    rows = datasets.load_dataset(name, subset or None, split=split, streaming=True)
  except (
    Exception
  ) as error:  # `datasets` raises its own, the hub's, fsspec's and builtin errors alike
    raise NLAError(
      f"the corpus {source} cannot be opened: {type(error).__name__}: {str(error).splitlines()[0]}; check "
      "the name, the split and the network, or log in where the data set asks for it"
    ) from error
  if rows.column_names and "text" not in rows.column_names:
    raise NLAError(
      f"the data set {source} has no column 'text'; its columns are {', '.join(rows.column_names)}"
    )
  return _Records(
    enumerate(rows),
    lambda number, row: [_from_row(row, f"{name}#{number}", f"{source} row {number}")],
  )


def _from_row(row: dict, default_id: str, place: str) -> Document:
  text = row.get("text")
  if not isinstance(text, str):
    given = "nothing" if text is None else type(text).__name__
    raise NLAError(f"{place} has {given} as 'text'; every document needs a string there")
  name = default_id if row.get("id") is None else str(row["id"])
  return Document(name, text, name if row.get("group") is None else str(row["group"]))
