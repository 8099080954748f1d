"""Transcripts to audit: conversations of JSON lines, parquet and Inspect's logs. A bad one costs one line."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nla_jax import files
from nla_jax.conversation.messages import Message, is_conversation, messages_of
from nla_jax.data import tables
from nla_jax.data.corpora.document import IDS
from nla_jax.data.corpora.read import read_corpus
from nla_jax.errors import NLAError, first_line

ENDINGS = (".jsonl", ".parquet", ".eval", ".json")
_EXAMPLE = '{"messages": […]}'
# Shown each transcript that cannot be audited: its id and why, in one line.
Refused = Callable[[str, str], Any]


class Transcript(NamedTuple):
  """A conversation to audit.

  Attributes:
    id: unique among what is audited together.
    messages: in the one form of `conversation.messages`.
    label: 1 where the target is known to believe what is looked for, 0 where not; None where nobody knows.
  """

  id: str
  messages: tuple[Message, ...]
  label: int | None = None

  @property
  def digest(self) -> str:
    """Names the transcript by what it says."""
    content = json.dumps([self.id, list(self.messages)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode(errors="replace")).hexdigest()[:16]


def read_file(path: str | os.PathLike, refused: Refused) -> Iterator[Transcript]:
  """The transcripts of a file.

  Args:
    path: .jsonl, .parquet, or Inspect's .eval and .json.
    refused: is shown what cannot be read.

  Raises:
    NLAError: there is no such file, or it is of another kind.
  """
  ending = os.path.splitext(os.fspath(path))[1].lower()
  if ending not in ENDINGS:
    raise NLAError(f"{path} is no file of transcripts; expected one of {', '.join(ENDINGS)}")
  found = files.expect_file(path, "the file of transcripts", "name a file of conversations")
  if ending == ".jsonl":
    return _json_lines(found, refused)
  if ending == ".parquet":
    return _parquet(found)
  return _inspect_log(found, refused)


def _json_lines(path: str, refused: Refused) -> Iterator[Transcript]:
  """Line by line: `read_corpus` would end at the first bad one."""
  for number, line in tables.json_lines(path):
    name, place = f"{Path(path).stem}#{number}", f"{path} line {number}"
    try:
      row = tables.parse_json_row(line, place, _EXAMPLE)
      yield transcript_of(row, name, place)
    except NLAError as error:
      refused(name, str(error))


def _parquet(path: str) -> Iterator[Transcript]:
  for one in read_corpus(path):
    if one.messages:
      yield Transcript(one.id, one.messages)


def _inspect_log(path: str, refused: Refused) -> Iterator[Transcript]:
  try:
    from inspect_ai.log import read_eval_log_samples
  except ImportError:
    refused(
      Path(path).name, f"{path} is a log of Inspect: pip install 'nla_jax[inspect]' to read it"
    )
    return

  # Its library raises what it likes of a file that was cut off.
  try:
    for sample in read_eval_log_samples(path, all_samples_required=False):
      name = f"{Path(path).stem}#{sample.id}.{sample.epoch}"
      try:
        yield Transcript(name, tuple(chat_messages(sample.messages)))
      except NLAError as error:
        refused(name, str(error))
  except (OSError, ValueError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
    refused(Path(path).name, f"{path} cannot be read as a log of Inspect ({first_line(error)})")


def chat_messages(messages: Any) -> list[Message]:
  """Inspect's chat messages in the one form. Raises NLAError where a part is no text (an image, a file)."""
  rows = []
  for one in messages:
    content = one.content if isinstance(one.content, str) else [_part(part) for part in one.content]
    calls = [
      {"name": c.function, "arguments": c.arguments} for c in getattr(one, "tool_calls", 0) or ()
    ]
    row = {"role": one.role, "content": content, "tool_calls": calls}
    rows.append({key: value for key, value in row.items() if value or key == "content"})
  return messages_of(rows)


def _part(part: Any) -> dict[str, Any]:
  kind = part.type
  text = part.text if kind == "text" else getattr(part, "reasoning", "")
  return {"type": kind, kind: text} if kind in ("text", "reasoning") else {"type": kind}


def transcript_of(row: dict, default_id: str, place: str) -> Transcript:
  """A row as a transcript. Raises NLAError where it holds no conversation, or a label that is none."""
  if not is_conversation(row):
    raise NLAError(f"{place} holds no conversation; expected {_EXAMPLE}")
  name = next((str(row[key]) for key in IDS if row.get(key) not in (None, "")), default_id)
  label = row.get("label")
  if label not in (None, 0, 1, True, False):
    raise NLAError(f"{place} has the label {label!r:.40}; expected 0 or 1")
  messages = tuple(messages_of(row, place))
  return Transcript(name, messages, None if label is None else int(label))


def files_of(folder: str | os.PathLike) -> list[Path]:
  """The files of transcripts in a folder and below, by name. Raises NLAError where there is no folder."""
  found = Path(files.here(folder))
  if not found.is_dir():
    raise NLAError(f"{folder} is no folder of transcripts; name a folder with {', '.join(ENDINGS)}")
  return sorted(one for one in found.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
