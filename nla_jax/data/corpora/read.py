"""Reads a corpus: documents to take activations from.

Bad input fails before the first document, or with the line it stands on.
"""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

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

Parse = Callable[[], Iterable[Document]]  # gives the documents of a record

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
  opened = _open(source)
  documents = itertools.chain.from_iterable(itertools.starmap(opened.documents, opened.records))
  return _checked(documents, source, max_documents)


def read_blocks(source: str, size: int) -> Iterator[tuple[int, Iterator[Parse]]]:
  """Returns a corpus in blocks of `size` records, as (number of the block, its records).

  A record is what a source is made of (an article, a paragraph, a line, a row), here a function that parses it and
  gives its documents. What is not called is counted past, which is cheap, so processes can share the parsing. A block's
  records can be taken only before the next block is asked for. All blocks, parsed, are `read_corpus`, but for the ids:
  whether they are unique is not looked at.

  Raises:
    NLAError: as `read_corpus`.
  """
  opened = _open(source)
  # By place, not by number: the numbers of JSON lines skip blank lines, and blocks should be of one size.
  grouped = itertools.groupby(enumerate(opened.records), key=lambda one: one[0] // size)
  return (
    (block, (functools.partial(opened.documents, *record) for _, record in members))
    for block, members in grouped
  )


def source_files(source: str) -> list[list[int]]:
  """Returns (bytes, time of the last change in ns) of each part of a corpus that is a file here, to know it again."""
  found = []
  for part in _parts(source):
    path = files.here(part)
    if os.path.isfile(path):
      status = os.stat(path)
      found.append([status.st_size, status.st_mtime_ns])
  return found


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


def _checked(documents: Iterable[Document], source: str, limit: int | None) -> Iterator[Document]:
  """Yields at most `limit` documents. Raises NLAError where an id occurs twice or there is no document."""
  seen = set()
  for document in documents:
    # An id seeds the choice of positions and names rows elsewhere: two documents of one id could not be told apart.
    if document.id in seen:
      raise repeated_id(source, document.id)
    seen.add(document.id)
    yield document
    if len(seen) == limit:
      return

  if not seen:
    raise no_document(source)
