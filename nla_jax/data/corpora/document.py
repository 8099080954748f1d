"""What a corpus is made of: documents, and the records of a source that documents are parsed from."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from nla_jax.autoencoder.text import well_formed
from nla_jax.conversation.messages import KEYS, Message, messages_of
from nla_jax.conversation.positions import ROLES
from nla_jax.errors import NLAError, shown

CONTENT = ("text", *KEYS)  # columns of which a row has one
# What a row may call its id: our own word, LMSYS's and WildChat's.
IDS = ("id", "conversation_id", "conversation_hash")
# And who talks: our own word, WildChat's.
USERS = ("user_id", "hashed_ip")


@dataclasses.dataclass(frozen=True)
class Document:
  """One text, or one conversation.

  Attributes:
    id: unique in the corpus; seeds the choice of positions.
    text: its words, as they are tokenised; "" of a conversation.
    group: what splits keep together (an article of which the document is a paragraph); the id where nothing is known.
    messages: of a conversation, as `conversation.messages` has them; the target's chat template will write them.
    source: name of the corpus it is from, where there are several; "" where there is one.
    user: whose conversation it is, as a group of its own; "" where the row does not say, or names its group itself.
  """

  id: str
  text: str
  group: str
  messages: tuple[Message, ...] = ()
  source: str = ""
  user: str = ""


class Records(NamedTuple):
  """A source before it is parsed. Counting past a record is cheap, so processes can share the parsing.

  Attributes:
    records: (number, record) of each record (an article, a paragraph, a line, a row); numbers ascend.
    documents: gives the documents of a (number, record): none, one, or several.
  """

  records: Iterable[tuple[int, Any]]
  documents: Callable[[int, Any], Iterable[Document]]


def document_of_row(row: dict, default_id: str, place: str) -> Document:
  """Makes a document of a row with a text or a conversation and, optionally, an id and a group.

  A text goes before a conversation, which may have any shape that `conversation.messages` reads.

  An id or a group that says nothing (none, NaN, blanks) counts as not given: documents without a group are their own.

  Args:
    row: of Python's own values.
    default_id: where the row has no id.
    place: the source and the row, for the message.

  Raises:
    NLAError: the row has neither, its messages are no conversation, or a text of it is no text.
  """
  text, messages = row.get("text"), ()
  if text is None and any(row.get(key) is not None for key in KEYS):
    text, messages = "", _messages(row, place)
  if not isinstance(text, str):
    given = "nothing" if text is None else type(text).__name__
    raise NLAError(
      f"{place} has {given} as 'text'; every document needs a string there, or a list of messages as 'messages'"
    )

  name = default_id
  for column in reversed(IDS):
    name = _name(row, column, name, place)
  group, user = _name(row, "group", "", place), ""
  for column in reversed(USERS if messages and not group else ()):
    user = _name(row, column, user, place)
  text = well_formed(text, f"the text of {place}")
  return Document(name, text, group or name, messages, user=user)


def _name(row: dict, column: str, default: str, place: str) -> str:
  """What a row says in `column`; the default where that is nothing."""
  value = row.get(column)
  if isinstance(value, (dict, list, bytes)):
    raise NLAError(f"{place} has {type(value).__name__} as {column!r}; give a string or a number")
  if value is None or not str(value).strip():
    return default
  return well_formed(str(value), f"the {column} of {place}")


def _messages(row: dict, place: str) -> tuple[Message, ...]:
  """Returns the messages of a row. Raises NLAError where they are no conversation."""
  messages = messages_of(row, place)
  for number, one in enumerate(messages, 1):
    if one["role"] not in ROLES:
      raise NLAError(
        f"message {number} of {place} has the role {shown(one['role'])}; a role is one of {', '.join(ROLES)}"
      )
    well_formed(one["content"], f"message {number} of {place}")
  return tuple(messages)


def join_records(names: Sequence[str], sources: Sequence[Records]) -> Records:
  """Returns the records of several sources, one source after the other, numbered through.

  Args:
    names: of the sources; ids and groups of their documents begin with them.
    sources: as many.
  """

  def records() -> Iterator[tuple[int, int, Any]]:
    for i, source in enumerate(sources):
      for number, record in source.records:
        yield i, number, record

  def documents(_: int, record: tuple[int, int, Any]) -> Iterator[Document]:
    i, number, content = record
    for one in sources[i].documents(number, content):
      # Two files may both count from 0, and their groups have nothing to do with each other.
      mine, group = f"{names[i]}:{one.id}", f"{names[i]}:{one.group}"
      user = f"{names[i]}:{one.user}" if one.user else ""
      yield dataclasses.replace(one, id=mine, group=group, source=names[i], user=user)

  return Records(enumerate(records()), documents)


def stem(path: str) -> str:
  """Returns a file's name without its folder and ending; ids of its documents begin with it."""
  return os.path.splitext(os.path.basename(path))[0]


def repeated_id(source: str, name: str) -> NLAError:
  """Returns the error to raise where two documents have one id."""
  return NLAError(
    f"the corpus {source} has the document id {shown(name)} twice; ids must be unique"
  )


def no_document(source: str) -> NLAError:
  """Returns the error to raise where there is no document."""
  return NLAError(f"the corpus {source} holds no document; it must have at least one text")
