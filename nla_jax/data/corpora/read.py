"""Reads a corpus: documents to take activations from.

Bad input fails before the first document, or with the line it stands on.
"""

import os
from collections.abc import Iterable, Iterator

from nla_jax.data.corpora import files, hub, wikipedia
from nla_jax.data.corpora.document import Document, Records, no_document, repeated_id
from nla_jax.errors import NLAError

_FILES = {".txt": files.read_text, ".jsonl": files.read_json_lines, ".parquet": files.read_parquet}


def read_corpus(source: str, *, max_documents: int | None = None) -> Iterator[Document]:
  """Returns the documents of `source`, in a fixed order.

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


def _open(source: str) -> Records:
  if source == wikipedia.SOURCE:
    return wikipedia.read_sample()
  if source.startswith(hub.PREFIX):
    return hub.read_hub(source)

  reader = _FILES.get(os.path.splitext(source)[1].lower())
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
