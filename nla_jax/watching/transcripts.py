"""The transcripts of a folder: every text or conversation in its files, and what cannot be read, one line each."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nla_jax.data.corpora import files as text_files
from nla_jax.data.corpora.document import Document
from nla_jax.errors import NLAError

READERS = {
  ".jsonl": text_files.read_json_lines,
  ".parquet": text_files.read_parquet,
  ".txt": text_files.read_text,
}


class Transcript(NamedTuple):
  """One transcript.

  Attributes:
    name: the file and the transcript in it.
    digest: sha256 (hex) of what it says: one that was edited is another one.
    what: a text, or a list of messages.
  """

  name: str
  digest: str
  what: Any


class Refused(NamedTuple):
  """What could not be read.

  Attributes:
    name: the file, and the transcript where it is known.
    reason: one line.
  """

  name: str
  reason: str


def transcripts(folder: Path) -> Iterator[Transcript | Refused]:
  """Everything in a folder's files, by name; a transcript that is none costs itself alone.

  Raises:
    NLAError: there is no such folder, or it is gone.
  """
  for path in files_of(folder):
    place = path.relative_to(folder).as_posix()
    try:
      source = READERS[path.suffix.lower()](str(path))
      records = iter(source.records)
    except NLAError as error:
      yield Refused(place, str(error))
      continue

    while True:
      # A line that cannot be parsed may end the file's records, but no other file.
      try:
        number, record = next(records)
        documents = list(source.documents(number, record))
      except StopIteration:
        break
      except NLAError as error:
        yield Refused(place, str(error))
        continue
      yield from (_transcript(place, one) for one in documents)


def files_of(folder: Path) -> list[Path]:
  """The files of a folder that transcripts can be in, those of its folders too, by name.

  Raises:
    NLAError: there is no such folder.
  """
  if not folder.is_dir():
    raise NLAError(
      f"{folder} is no folder: give one with {', '.join(READERS)} files, each with transcripts in it"
    )
  found = (path for path in folder.rglob("*") if path.suffix.lower() in READERS)
  return sorted(path for path in found if path.is_file())


def _transcript(place: str, document: Document) -> Transcript:
  what = list(document.messages) or document.text
  said = json.dumps(what, sort_keys=True, ensure_ascii=True)
  return Transcript(f"{place}: {document.id}", hashlib.sha256(said.encode()).hexdigest(), what)
