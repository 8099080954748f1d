"""Documents to take activations from. Bad input fails before the first document, or with the line it stands on."""
import dataclasses
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator

from nla_jax.data import corpus_wikipedia
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
    raise NLAError(f"max_documents is {max_documents}; give a number of at least 1, or None for the whole corpus")
  return _checked(_open(source), source, max_documents)


def _open(source: str) -> Iterable[Document]:
  if source == "wikipedia-sample":
    if importlib.util.find_spec("mwparserfromhell") is None:
      raise NLAError("the corpus 'wikipedia-sample' is cleaned with the Python package mwparserfromhell, which is not "
                     "installed; install the extra `demo` (pip install 'nla_jax[demo]')")
    return _wikipedia(corpus_wikipedia.sample_path())
  if source.startswith("hf://"):
    return _hub(source)
  readers = {".txt": _text_file, ".jsonl": _json_lines, ".parquet": _parquet}
  reader = readers.get(os.path.splitext(source)[1].lower())
  if reader is None:
    raise NLAError(f"the corpus {source!r} is no known kind; give 'wikipedia-sample', a .txt, .jsonl or .parquet file, "
                   "or hf://name[@subset][:split]")
  if not os.path.isfile(source):
    raise NLAError(f"the corpus file {source} does not exist; check --config.corpus")
  if not os.access(source, os.R_OK):
    raise NLAError(f"the corpus file {source} may not be read by this user; change its permissions")
  return reader(source)


def _checked(documents: Iterable[Document], source: str, limit: int | None) -> Iterator[Document]:
  seen = set()
  for document in documents:
    if document.id in seen:
      raise NLAError(f"the corpus {source} has the document id {document.id!r} twice; ids must be unique")
    seen.add(document.id)
    yield document
    if len(seen) == limit:
      return
  if not seen:
    raise NLAError(f"the corpus {source} holds no document; it must have at least one text")


def _wikipedia(path: str) -> Iterator[Document]:
  for title, wikitext in corpus_wikipedia.read_pages(path):
    for i, paragraph in enumerate(corpus_wikipedia.paragraphs(wikitext)):
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
    raise NLAError(f"{path} is not UTF-8 text (after line {number}: {error.reason}); save it as UTF-8") from None
  except OSError as error:
    raise NLAError(f"{path} cannot be read: {error.strerror}") from None


def _text_file(path: str) -> Iterator[Document]:
  count, paragraph = 0, []
  for _, line in (*_lines(path), (0, "")):
    if line.strip():
      paragraph.append(line)
    elif paragraph:
      name = f"{_stem(path)}#{count}"
      yield Document(name, "\n".join(paragraph), name)
      count, paragraph = count + 1, []


def _json_lines(path: str) -> Iterator[Document]:
  for number, line in _lines(path):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise NLAError(f"{path} line {number} is not JSON ({error.msg} at column {error.colno}); give one object a "
                     "line, such as {\"text\": \"…\"}") from None
    if not isinstance(row, dict):
      raise NLAError(f"{path} line {number} is a JSON {type(row).__name__}; give one object a line, such as "
                     "{\"text\": \"…\"}")
    yield _from_row(row, f"{_stem(path)}#{number}", f"{path} line {number}")


def _parquet(path: str) -> Iterator[Document]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    with pq.ParquetFile(path) as file:
      columns = file.schema_arrow.names
      if "text" not in columns:
        raise NLAError(f"{path} has no column 'text'; its columns are {', '.join(columns)}; rename the one that holds "
                       "the documents")
      number = 0
      for batch in file.iter_batches(1024, columns=[name for name in ("text", "id", "group") if name in columns]):
        for row in batch.to_pylist():
          yield _from_row(row, f"{_stem(path)}#{number}", f"{path} row {number}")
          number += 1
  except (pa.ArrowException, OSError) as error:
    raise NLAError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from None


def _hub(source: str) -> Iterable[Document]:
  if importlib.util.find_spec("datasets") is None:
    raise NLAError(f"the corpus {source} is read with the Python package datasets, which is not installed; "
                   "pip install datasets")
  import datasets

  # A split never holds a slash, so a colon before the last slash belongs to a path.
  head, colon, split = source.removeprefix("hf://").rpartition(":")
  name, split = (head, split) if colon and "/" not in split else (source.removeprefix("hf://"), "train")
  name, _, subset = name.partition("@")
  if not name or not split:
    raise NLAError(f"the corpus {source!r} is incomplete; write hf://name, hf://name:split or hf://name@subset:split")
  try:
    rows = datasets.load_dataset(name, subset or None, split=split, streaming=True)
  except Exception as error:  # `datasets` raises its own, the hub's, fsspec's and builtin errors alike
    raise NLAError(f"the corpus {source} cannot be opened: {type(error).__name__}: {str(error).splitlines()[0]}; check "
                   "the name, the split and the network, or log in where the data set asks for it") from error
  if rows.column_names and "text" not in rows.column_names:
    raise NLAError(f"the data set {source} has no column 'text'; its columns are {', '.join(rows.column_names)}")
  return (_from_row(row, f"{name}#{number}", f"{source} row {number}") for number, row in enumerate(rows))


def _from_row(row: dict, default_id: str, place: str) -> Document:
  text = row.get("text")
  if not isinstance(text, str):
    given = "nothing" if text is None else type(text).__name__
    raise NLAError(f"{place} has {given} as 'text'; every document needs a string there")
  name = default_id if row.get("id") is None else str(row["id"])
  return Document(name, text, name if row.get("group") is None else str(row["group"]))
