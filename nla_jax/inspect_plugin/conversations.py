"""Conversations of Inspect as the library has them, and positions in a part of their tokens."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from nla_jax.auditing.transcripts import Transcript, chat_messages
from nla_jax.conversation.messages import Message, messages_of
from nla_jax.conversation.positions import choose
from nla_jax.conversation.tokens import Tokens

# Messages of Inspect or of any shape that `conversation.messages` reads, a transcript, or what returns one of these.
Conversation = Sequence[Any] | Transcript | Callable[[], Any]


def messages_from(value: Any) -> list[Message]:
  """A conversation in the one form.

  Args:
    value: Inspect's chat messages, messages of any known shape, or a `Transcript`.

  Raises:
    NLAError: it is no conversation, or a message holds what cannot be read, such as an image.
  """
  if isinstance(value, Transcript):
    return list(value.messages)
  # Inspect's messages are objects, those of all others are dictionaries.
  if isinstance(value, Sequence) and value and all(hasattr(one, "role") for one in value):
    return chat_messages(value)
  return messages_of(value)


def chosen_among(tokens: Tokens, among: Sequence[int], positions: Any, seed: int = 0) -> list[int]:
  """Indices of tokens that a rule means, of some of the tokens as if there were no others.

  Args:
    tokens: of the whole.
    among: indices of those that may be meant, in order; an index of the rule counts in these.
    positions: see `conversation.positions`.
    seed: of tokens that are drawn.

  Raises:
    NLAError: the rule is none, or it leaves none of the tokens.
  """
  parts = {
    field.name: [getattr(tokens, field.name)[i] for i in among]
    for field in dataclasses.fields(tokens)
    if field.name != "text"
  }
  part = Tokens(text=tokens.text, **parts)
  return [among[i] for i in choose(part, positions, seed=seed)]
