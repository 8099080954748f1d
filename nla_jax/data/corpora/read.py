"""Reads a corpus: documents to take activations from.

Bad input fails before the first document, or with the line it stands on.
"""

import collections
import os
from collections.abc import Iterable, Iterator

from nla_jax import files
from nla_jax.data.corpora import chitchat, hub, wikipedia
from nla_jax.data.corpora import files as text_files
from nla_jax.data.corpora.document import (
  Document,
  Records,
  join_records,
  no_document,
  repeated_id,
  stem,
)
from nla_jax.errors import NLAError

SEPARATOR = "+"  # between corpora that are read as one
_SAMPLES = {wikipedia.SOURCE: wikipedia.read_sample, chitchat.SOURCE: chitchat.read_sample}
_FILES = {
  ".txt": text_files.read_text,
  ".jsonl": text_files.read_json_lines,
  ".parquet": text_files.read_parquet,
}


def read_corpus(source: str, *, max_documents: int | None = None) -> Iterator[Document]:
  """Returns the documents of `source`, in a fixed order.

  Sources:
    "chitchat-sample": conversations of two people from the installed `chitchat-dataset`; a group is a circle of people.
    "wikipedia-sample": prose paragraphs of English Wikipedia from the installed `gensim`; a group is an article.
    "*.txt": one document a paragraph (paragraphs are separated by blank lines), ids "{file's stem}#{i}".
    "*.jsonl": one object a line with `text` or `messages` (a list of {"role", "content"}), optionally `id` and `group`.
    "*.parquet": a column `text` or `messages`, optionally `id` and `group`.
    "hf://name[@subset][:split]": a data set on the hub (or a folder of one) through `datasets`, streamed; columns as
      for parquet; the split is `train` where none is given.
    "one+another": several of these, one after the other. Ids and groups then begin with the name of their source, so
      rows of two sources are never of one group. A path that exists is one source, whatever is in its name.

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
  # Not a generator itself: the source is opened here, so a missing one fails before the first document is asked for.
  documents = _parse(_open(source), 0, 1)
  return (document for _, document in _checked(documents, source, max_documents))


def read_part(source: str, index: int, count: int) -> Iterator[tuple[int, Document]]:
  """Returns part `index` of `count` of a corpus, as (number of the record, document).

  A record is what a source is made of (an article, a paragraph, a line, a row). Each part takes every count-th record
  and parses only those. All parts, sorted by the record's number, are `read_corpus`. A part may be empty, and ids are
  unique within it.

  Raises:
    NLAError: as `read_corpus`.
  """
  return _checked(_parse(_open(source), index, count), source, None, may_be_empty=True)


def _parse(source: Records, index: int, count: int) -> Iterator[tuple[int, Document]]:
  # By place, not by number: the numbers of JSON lines skip blank lines, and parts should be of one size.
  for place, (number, record) in enumerate(source.records):
    if place % count == index:
      for document in source.documents(number, record):
        yield number, document


def source_names(corpus: str) -> list[str]:
  """Returns what the documents of each source are marked with: a sample's name, a file's stem, a name on the hub.

  A corpus of one source does not mark its documents: [""].

  Raises:
    NLAError: a part of the corpus is empty, or two sources have one name.
  """
  parts = _parts(corpus)
  if len(parts) == 1:
    return [""]
  if not all(parts):
    raise NLAError(
      f"the corpus {corpus!r} has an empty part; write {SEPARATOR} between two corpora only"
    )

  names = [_name(part) for part in parts]
  name, times = collections.Counter(names).most_common(1)[0]
  if times > 1:
    raise NLAError(
      f"the corpus {corpus!r} has {times} parts called {name!r}, whose documents could not be told apart; "
      "leave one out, or rename a file"
    )
  return names


def _name(part: str) -> str:
  if part in _SAMPLES or part.startswith(hub.PREFIX):
    return part.removeprefix(hub.PREFIX)
  return stem(part)


def _parts(corpus: str) -> list[str]:
  """Returns the sources of a corpus; a file or folder with a + in its name is one."""
  whole = os.path.exists(files.here(corpus.removeprefix(hub.PREFIX)))
  return [corpus] if whole else corpus.split(SEPARATOR)


def _open(corpus: str) -> Records:
  """Opens all sources, so that what is missing is told before the first document of any is read."""
  names, parts = source_names(corpus), _parts(corpus)
  opened = [_open_source(part) for part in parts]
  return opened[0] if len(opened) == 1 else join_records(names, opened)


def _open_source(source: str) -> Records:
  if source in _SAMPLES:
    return _SAMPLES[source]()
  if source.startswith(hub.PREFIX):
    return hub.read_hub(source)

  reader = _FILES.get(os.path.splitext(source)[1].lower())
  if reader is None and os.path.isdir(files.here(source)):
    raise NLAError(
      f"the corpus {source} is a folder; give a .txt, .jsonl or .parquet file, or {hub.PREFIX}{source} for a "
      "folder of a data set"
    )
  if reader is None:
    raise NLAError(
      f"the corpus {source!r} is no known kind; give {', '.join(map(repr, _SAMPLES))}, a .txt, .jsonl or "
      f".parquet file, hf://name[@subset][:split], or several with {SEPARATOR} between"
    )
  return reader(files.expect_file(source, "the corpus file", "check --config.corpus"))


def _checked(
  documents: Iterable[tuple[int, Document]],
  source: str,
  limit: int | None,
  may_be_empty: bool = False,
) -> Iterator[tuple[int, Document]]:
  """Yields at most `limit` documents. Raises NLAError where an id occurs twice or there is no document."""
  seen = set()
  for number, document in documents:
    # An id seeds the choice of positions and names rows elsewhere: two documents of one id could not be told apart.
    if document.id in seen:
      raise repeated_id(source, document.id)
    seen.add(document.id)
    yield number, document
    if len(seen) == limit:
      return

  if not seen and not may_be_empty:
    raise no_document(source)
