"""Files of conversations as transcripts of Scout, so that what `nla awareness` reads can be scanned as well."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from inspect_ai.model import (
  ChatMessage,
  ChatMessageAssistant,
  ChatMessageSystem,
  ChatMessageTool,
  ChatMessageUser,
  Content,
  ContentReasoning,
  ContentText,
)
from inspect_ai.tool import ToolCall
from inspect_scout import Transcript

from nla_jax.auditing.transcripts import Refused, read_file
from nla_jax.conversation.messages import Message
from nla_jax.errors import NLAError, shown

SOURCE = "nla_jax"


def scout_transcripts(path: str | os.PathLike, refused: Refused) -> Iterator[Transcript]:
  """The transcripts of a file, for `TranscriptsDB.insert` or a scanner.

  Args:
    path: .jsonl, .parquet, or Inspect's .eval and .json. A label goes into the metadata.
    refused: is shown the id of each transcript that Scout cannot hold, and why.

  Raises:
    NLAError: there is no such file, or it is of another kind.
  """
  for one in read_file(path, refused):
    try:
      messages = [_message(row, f"{one.id}-{i}") for i, row in enumerate(one.messages)]
    except NLAError as error:
      refused(one.id, str(error))
      continue
    metadata = {} if one.label is None else {"label": one.label}
    source = {"source_type": SOURCE, "source_uri": os.fspath(path)}
    yield Transcript(
      transcript_id=one.id, task_id=one.id, messages=messages, metadata=metadata, **source
    )


def _message(row: Message, name: str) -> ChatMessage:
  make = _KINDS.get(row["role"])
  if make is None:
    raise NLAError(
      f"message {name} has the role {shown(row['role'])}; Scout has {', '.join(_KINDS)}: rename it or leave it out"
    )
  return make(row, {"id": name, "content": row["content"]})


def _assistant(row: Message, said: dict[str, Any]) -> ChatMessage:
  content: str | list[Content] = said["content"]
  if row.get("reasoning_content"):
    thought = ContentReasoning(reasoning=row["reasoning_content"])
    content = [thought, ContentText(text=row["content"])]
  calls = [
    ToolCall(id=call.get("id") or f"{said['id']}-{i}", **_named(call["function"]))
    for i, call in enumerate(row.get("tool_calls", ()))
  ]
  return ChatMessageAssistant(id=said["id"], content=content, tool_calls=calls or None)


def _named(function: dict[str, Any]) -> dict[str, Any]:
  return {"function": function["name"], "arguments": function["arguments"]}


def _tool(row: Message, said: dict[str, Any]) -> ChatMessage:
  return ChatMessageTool(**said, tool_call_id=row.get("tool_call_id"), function=row.get("name"))


_KINDS: dict[str, Callable[[Message, dict[str, Any]], ChatMessage]] = {
  "system": lambda row, said: ChatMessageSystem(**said),
  "user": lambda row, said: ChatMessageUser(**said),
  "assistant": _assistant,
  "tool": _tool,
}
