"""One form of a conversation, and how the shapes that people have become it.

The form is what chat templates of transformers take: a list of messages, each a dictionary with

  role                system, user, assistant or tool; what a template calls otherwise (developer, ipython) stays
  content             a string, perhaps empty
  reasoning_content   what the assistant thought before it answered, where there is some
  tool_calls          of the assistant: [{"type": "function", "function": {"name", "arguments": {…}}}]
  name, tool_call_id  of a tool's answer, where they are given

Shapes that are read:

  OpenAI and Hugging Face   {"messages": [{"role", "content": string or parts, "tool_calls", …}]}, or the list alone
  ShareGPT                  {"conversations": [{"from", "value"}]}
  WildChat, LMSYS           {"conversation": [{"role", "content", …}]}
  Anthropic's parts         {"type": "text" | "thinking" | "tool_use" | "tool_result"}
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nla_jax.errors import NLAError, shown

Message = dict[str, Any]

# Keys under which a row holds its conversation.
KEYS = ("messages", "conversations", "conversation")
# ShareGPT's names of roles, and those of the tools that write it.
_ROLES = {
  "human": "user",
  "gpt": "assistant",
  "chatgpt": "assistant",
  "bing": "assistant",
  "bard": "assistant",
  "model": "assistant",
  "observation": "tool",
  "function": "tool",
  "function_response": "tool",
  "function_call": "assistant",
}
_EXAMPLE = '[{"role": "user", "content": "…"}]'


def messages_of(value: Any, place: str = "the conversation") -> list[Message]:
  """A conversation of any known shape, in the one form.

  Args:
    value: a list of messages, or a row that holds one under one of `KEYS`.
    place: what a message about a mistake calls it, such as "line 7".

  Raises:
    NLAError: it is no conversation, or a message is not one; the message says which, and what it has.
  """
  what = f"{place} is"
  if isinstance(value, Mapping):
    key = _key_of(value, place)
    value, what = value[key], f"{place} has under {key!r}"
  if isinstance(value, str) or not isinstance(value, Sequence) or not value:
    raise NLAError(f"{what} {_named(value)}: expected a list of messages such as {_EXAMPLE}")

  messages = []
  for number, one in enumerate(value, 1):
    where = f"message {number} of {place}"
    if not isinstance(one, Mapping):
      raise NLAError(f"{where} is {_named(one)}: expected an object such as {_EXAMPLE[1:-1]}")
    messages += _sharegpt(one, where) if "from" in one else _chat(one, where)
  return messages


def is_conversation(value: Any) -> bool:
  """Whether a value looks like a conversation rather than a text or token ids."""
  if isinstance(value, Mapping):
    return any(key in value for key in KEYS)
  several = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
  return several and all(isinstance(one, Mapping) for one in value)


def _key_of(row: Mapping, place: str) -> str:
  for key in KEYS:
    if row.get(key) is not None:
      return key
  raise NLAError(
    f"{place} has {', '.join(map(shown, list(row)[:9])) or 'no keys'}: expected one of {', '.join(KEYS)}"
  )


def _sharegpt(one: Mapping, where: str) -> list[Message]:
  """A message of ShareGPT."""
  given, text = one["from"], one.get("value")
  if not isinstance(given, str) or not isinstance(text, str):
    raise NLAError(
      f"{where}: 'from' is {_named(given)} and 'value' {_named(text)}; expected strings"
    )
  message = {"role": _ROLES.get(given.lower(), given.lower()), "content": text}
  if given.lower() != "function_call":
    return [message]

  # A call is written as JSON; what is not stays the words that it is.
  call = _json(text)
  if not isinstance(call, Mapping) or "name" not in call:
    return [message]
  return [{**message, "content": "", "tool_calls": [_call(call, where)]}]


def _chat(one: Mapping, where: str) -> list[Message]:
  """A message of OpenAI's, Hugging Face's or Anthropic's shape; several where a part is a tool's answer."""
  role, content = one.get("role"), one.get("content")
  if not isinstance(role, str) or not role:
    raise NLAError(f"{where}: 'role' is {_named(role)}; expected system, user, assistant or tool")
  given = one.get("tool_calls") or []
  if not isinstance(given, Sequence) or isinstance(given, str):
    raise NLAError(f"{where}: 'tool_calls' is {_named(given)}; expected a list of calls")
  calls = [_call(call, where) for call in given]
  if content is None and not calls and not one.get("reasoning_content"):
    raise NLAError(f"{where} has no content")

  # 1. What it says, thinks, calls, and what tools answered inside of it.
  thought, answers = one.get("reasoning_content") or one.get("reasoning") or "", []
  if not isinstance(content, str):
    parts = _Parts(content or [], where)
    content, calls, answers = parts.text, calls + parts.calls, parts.answers
    thought = thought or parts.thought
  if not isinstance(thought, str):
    raise NLAError(f"{where}: its reasoning is {_named(thought)}; expected a string")

  # 2. The message, without keys that it does not have.
  role = _ROLES.get(role.lower(), role)
  further = {"reasoning_content": thought, "tool_calls": calls}
  further |= {key: one.get(key) for key in ("name", "tool_call_id")}
  message = {"role": role, "content": content} | {k: v for k, v in further.items() if v}
  said = message["content"] or calls or thought
  return [*answers, message] if said or not answers else answers


class _Parts:
  """What the parts of a message say.

  Attributes:
    text: of its text parts, one after another.
    thought: of its thinking parts.
    calls: of tools.
    answers: of tools, each a message.
  """

  def __init__(self, parts: Any, where: str):
    _expect_parts(parts, where)
    self.text, self.thought, self.calls, self.answers = "", "", [], []
    for part in parts:
      self._take(part, where)

  def _take(self, part: Any, where: str) -> None:
    if isinstance(part, str):
      self.text += part
      return
    kind = part.get("type", "text") if isinstance(part, Mapping) else None
    if kind in ("text", "input_text", "output_text"):
      self.text += _string(part, "text", where)
    elif kind in ("thinking", "reasoning"):
      self.thought += _string(part, kind if kind in part else "text", where)
    elif kind == "tool_use":
      self.calls.append(_call({"name": part.get("name"), "arguments": part.get("input")}, where))
    elif kind == "tool_result":
      content = part.get("content") or ""
      text = content if isinstance(content, str) else _answered(content, where)
      answer = {"role": "tool", "content": text, "tool_call_id": part.get("tool_use_id")}
      self.answers.append({key: value for key, value in answer.items() if value is not None})
    else:
      raise NLAError(
        f"{where} has a part of type {shown(kind)}, and only text, reasoning, tool calls and their answers can be "
        "read: leave it out"
      )


def _expect_parts(parts: Any, where: str) -> None:
  if not isinstance(parts, Sequence):
    raise NLAError(f"{where}: 'content' is {_named(parts)}; expected a string or a list of parts")


def _answered(parts: Any, where: str) -> str:
  """What a tool answered, in parts: words, and no further calls or answers, which would nest without end."""
  _expect_parts(parts, where)
  words = [{"text": part} if isinstance(part, str) else part for part in parts]
  for one in words:
    kind = one.get("type", "text") if isinstance(one, Mapping) else None
    if kind != "text":
      raise NLAError(
        f"{where} has a tool's answer with a part of type {shown(kind)}, and only text can be read: leave it out"
      )
  return "".join(_string(one, "text", where) for one in words)


def _call(call: Any, where: str) -> dict:
  """A tool call as templates take it: with its arguments as an object."""
  function = call.get("function", call) if isinstance(call, Mapping) else None
  name = function.get("name") if isinstance(function, Mapping) else None
  if not isinstance(name, str):
    raise NLAError(f"{where} has a tool call without the name of a function")
  arguments = function.get("arguments")
  if isinstance(arguments, str):
    # A model's own words: what is no JSON is shown as it is.
    parsed = _json(arguments)
    arguments = parsed if isinstance(parsed, Mapping) else arguments
  if not isinstance(arguments, Mapping):
    arguments = {} if arguments is None else {"arguments": arguments}
  found = {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
  return found | ({"id": call["id"]} if isinstance(call.get("id"), str) else {})


def _json(text: str) -> Any:
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return None


def _string(part: Mapping, key: str, where: str) -> str:
  if not isinstance(part.get(key), str):
    raise NLAError(
      f"{where} has a part whose {key!r} is {_named(part.get(key))}; expected a string"
    )
  return part[key]


def _named(value: Any) -> str:
  """What a value is, for a message about a mistake."""
  if value is None:
    return "missing"
  if isinstance(value, Sequence) and not value:
    return "an empty list" if isinstance(value, list) else "empty"
  return f"a {type(value).__name__}"
