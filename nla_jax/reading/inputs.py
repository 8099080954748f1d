"""What is read: a text, a conversation or token ids, as the tokens that the target sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder.chat import pieces, unchecked
from nla_jax.autoencoder.text import well_formed
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.conversation.messages import Message, is_conversation, messages_of
from nla_jax.conversation.tokens import (
  Tokens,
  spans_of,
  tokens_of_ids,
  tokens_of_pieces,
  tokens_of_text,
)
from nla_jax.errors import NLAError

EXPECTED = "expected a text, a conversation (a list of messages), or a list of token ids"


def tokens_of(
  tokenizer: Any,
  what: Any,
  *,
  reply: bool = False,
  resume: bool = False,
  thinking: bool | None = None,
) -> Tokens:
  """The tokens of what is read, each with its words, its role, its message and its section.

  A text stands behind the BOS, where the tokenizer puts one. A conversation is written by the chat template, which
  writes the BOS itself. Ids are taken as they are.

  Args:
    tokenizer: of the target.
    what: a text; a conversation of any shape that `conversation.messages` reads; or token ids.
    reply: whether the assistant's next turn is begun, of a conversation.
    resume: whether the last message is left open, to be continued.
    thinking: whether the template shall ask the model to think; None leaves it to the template.

  Raises:
    NLAError: it is nothing of these, it is empty, or the template refuses it; in the template's own words.
  """
  if isinstance(what, str):
    if not well_formed(what).strip():
      raise NLAError("the text is empty: there is nothing to read")
    return tokens_of_text(tokenizer, what)
  if is_conversation(what):
    if reply and resume:
      raise NLAError(
        "reply and resume are both set: either a new turn is begun or the last is left open"
      )
    return _of_messages(tokenizer, messages_of(what), reply, resume, thinking)
  return tokens_of_ids(tokenizer, _ids(tokenizer, what))


def is_several(what: Any) -> bool:
  """Says whether `what` is a list of texts, conversations or ids, rather than one of them."""
  if isinstance(what, (str, np.ndarray)) or not isinstance(what, Sequence) or not what:
    return False
  first = what[0]
  # A message is an object too, but none that holds a conversation.
  of_rows = isinstance(first, Mapping) and is_conversation(first)
  return of_rows or isinstance(first, (str, Sequence, np.ndarray))


def _of_messages(
  tokenizer, messages: Sequence[Message], reply: bool, resume: bool, thinking: bool | None
) -> Tokens:
  options = {"continue_final_message": True} if resume else {}
  if thinking is not None:
    options["enable_thinking"] = thinking
  if resume and not messages[-1]["content"].strip():
    raise NLAError("the last message is empty: there is nothing to continue; leave out resume")

  found = pieces(tokenizer, messages, reply=reply, **options)
  spans = spans_of(
    "".join(piece.text for piece in found),
    messages,
    lambda marked: unchecked(tokenizer, marked, reply=reply, **options),
    list(special_tokens(tokenizer).values()),
  )
  return tokens_of_pieces(tokenizer, found, spans, [one["role"] for one in messages])


def _ids(tokenizer, what: Any) -> list[int]:
  if isinstance(what, (str, bytes)) or not isinstance(what, (Sequence, np.ndarray)):
    raise NLAError(f"what is read is a {type(what).__name__}: {EXPECTED}")
  if not len(what):
    raise NLAError(f"what is read is empty: {EXPECTED}")
  whole = [one for one in what if isinstance(one, (int, np.integer)) and not isinstance(one, bool)]
  if len(whole) != len(what):
    shown = next(
      one for one in what if not isinstance(one, (int, np.integer)) or isinstance(one, bool)
    )
    raise NLAError(f"what is read holds {shown!r:.40}, which is no token id: {EXPECTED}")
  bad = next((one for one in whole if not 0 <= one < len(tokenizer)), None)
  if bad is not None:
    raise NLAError(
      f"the token id {bad} is outside: the tokenizer has ids 0 to {len(tokenizer) - 1}"
    )
  return [int(one) for one in whole]
