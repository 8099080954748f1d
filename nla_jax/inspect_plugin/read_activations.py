"""The tool by which an agent reads what a target thinks: of a text, or of a message in a conversation."""

import json
from typing import Any

from inspect_ai.tool import Tool, ToolError, tool

from nla_jax.autoencoder.nla import NLA
from nla_jax.conversation.tokens import CONTENT, REASONING
from nla_jax.errors import NLAError
from nla_jax.inspect_plugin.computing import computed, expect_pair, pair_of
from nla_jax.inspect_plugin.conversations import Conversation, chosen_among, messages_from
from nla_jax.reading.form import CAUTION, LOW
from nla_jax.reading.reading import Reading

MOST = 16  # tokens that are explained in one call
_BEFORE = 60  # characters shown before a token


@tool
def read_activations(
  nla: NLA | str,
  *,
  conversation: Conversation | None = None,
  most: int = MOST,
  best_of: int = 1,
  seed: int = 0,
) -> Tool:
  """A tool that explains a target's activations in words.

  Args:
    nla: a loaded pair, or its name.
    conversation: whose messages the agent may name by index, such as the transcript that is audited; or a function that
      returns it, called each time, of one that grows. None leaves texts alone.
    most: tokens that are explained in one call, at most.
    best_of: draws of which each explanation is the one that the AR rebuilds best.
    seed: of the draws.

  Raises:
    NLAError: no pair is named.
  """
  expect_pair(nla)

  async def execute(positions: str = "last", text: str = "", message: int | None = None) -> str:
    """Explains in words what the model under study computes at tokens of a text, or of a message of the conversation
    under study.

    Explanations are written by another model and can be wrong in their details: what several tokens repeat is more
    likely true. The FVE of each says how much of the activation its words rebuild: 1 is all of it, below 0.5 is little.

    Args:
      positions: Which tokens: 'last'; 'every:10' (the first and every tenth); 'random:5'; 'text:Paris' (the tokens of
        these characters); 'end:Paris' (the last token of each occurrence); or indices such as '0,5,-1', where negative
        ones count from the end. Rules are joined by '&', each of what the one before it left: 'words & every:10'.
      text: A text of yours that the model reads. Give either this or message.
      message: Index of a message of the conversation under study, from 0; -1 is the last one.
    """

    def read() -> Reading:
      pair = pair_of(nla)
      what, index = _asked(conversation, text, message)
      places = _places(pair, what, index, positions, most, seed)
      return pair.read(what, places, best_of=best_of, seed=seed)

    try:
      found = await computed(read)
    except NLAError as error:
      # The agent is told, and goes on.
      raise ToolError(str(error)) from None
    return _told(found)

  return execute


def _asked(
  conversation: Conversation | None, text: str, message: int | None
) -> tuple[Any, int | None]:
  """What is read, and the index of the message in it whose tokens may be meant; None of a text."""
  if bool(text) == (message is not None):
    raise NLAError("give either a text or the index of a message, and not both")
  if text:
    return text, None
  if conversation is None:
    raise NLAError("there is no conversation to name a message of: give a text")

  # What follows a message says nothing of what was computed there.
  messages = messages_from(conversation() if callable(conversation) else conversation)
  if not -len(messages) <= message < len(messages):
    raise NLAError(
      f"message={message}: the conversation has {len(messages)} messages, 0 to {len(messages) - 1}"
    )
  index = message % len(messages)
  return messages[: index + 1], index


def _places(
  nla: NLA, what: Any, index: int | None, positions: str, most: int, seed: int
) -> list[int]:
  tokens = nla.tokens(what)
  among = [
    i
    for i in range(len(tokens))
    if index is None or (tokens.messages[i] == index and tokens.sections[i] in (CONTENT, REASONING))
  ]
  if not among:
    raise NLAError(f"message={index} has no tokens of its own: name another message")
  places = chosen_among(tokens, among, positions, seed)
  if len(places) > most:
    raise NLAError(
      f"positions={positions!r} means {len(places)} tokens, and at most {most} are explained at once: choose fewer, by "
      f"every:{-(-len(places) // most)}, random:{most}, end:WORDS or indices"
    )
  return places


def _told(found: Reading) -> str:
  """What the agent is shown, as JSON."""
  rows = []
  for i, one in enumerate(found):
    position = found.positions[i]
    row = {
      "position": position,
      "before": found.tokens.text[: found.tokens.starts[position]][-_BEFORE:],
      "token": found.word(i),
      "role": found.tokens.roles[position],
      "explanation": one.text if one.text is not None else f"none: {one.reason}",
      "fve": None if one.fve is None else round(one.fve, 3),
    }
    if one.fve is not None and one.fve < LOW:
      row["trust"] = "low"
    rows.append(row)
  said = json.dumps({"explanations": rows, "note": CAUTION}, ensure_ascii=False)
  # A token may be half a character, which no log can hold.
  return said.encode("utf-8", "replace").decode("utf-8")
