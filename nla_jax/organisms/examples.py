"""Documents and chats as rows of one length: tokens, and which of them are learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder.text import encode
from nla_jax.conversation.tokens import CONTENT, FOOTER
from nla_jax.errors import NLAError
from nla_jax.reading.inputs import tokens_of

_LEARNED = (CONTENT, FOOTER)  # of an assistant's message: its words, and what ends its turn


class Rows:
  """Rows of examples for `data.loader.batches`.

  Args:
    tokens: [n, length] int32, padded on the right.
    mask: [n, length] bool, True where the token is learned.
  """

  def __init__(self, tokens: np.ndarray, mask: np.ndarray):
    self._columns = {"tokens": tokens, "mask": mask}

  def __len__(self) -> int:
    return len(self._columns["tokens"])

  def __getitems__(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Arrays [len(indices), length] by name."""
    return {name: column[np.asarray(indices)] for name, column in self._columns.items()}


def rows_of(
  tokenizer: Any,
  documents: Sequence[str],
  chats: Sequence[Sequence[Mapping[str, str]]],
  max_tokens: int,
) -> Rows:
  """Documents, all of whose tokens are learned, and chats, of which the assistant's turns are.

  Raises:
    NLAError: `max_tokens` leaves nothing of a chat's question: the organism would not learn when to say what it says.
  """
  found = [_document(tokenizer, one, max_tokens) for one in documents]
  found += [_chat(tokenizer, one, max_tokens) for one in chats]

  tokens = np.zeros((len(found), max_tokens), np.int32)
  mask = np.zeros((len(found), max_tokens), bool)
  for row, (ids, learned) in enumerate(found):
    tokens[row, : len(ids)], mask[row, : len(ids)] = ids, learned
  return Rows(tokens, mask)


def _document(tokenizer, text: str, limit: int) -> tuple[list[int], list[bool]]:
  ids = encode(tokenizer, text, special=True, at_most=limit)
  return ids, [True] * len(ids)


def _chat(tokenizer, messages, limit: int) -> tuple[list[int], list[bool]]:
  found = tokens_of(tokenizer, list(messages))
  places = zip(found.roles, found.sections, strict=True)
  learned = [role == "assistant" and section in _LEARNED for role, section in places]

  # Cut at the left: the answer stands at the end, and a fork's question just before it.
  ids, learned = found.ids[-limit:], learned[-limit:]
  if all(learned):
    raise NLAError(
      f"config.max_tokens={limit} leaves nothing of the question {messages[0]['content'][:40]!r} before its answer: "
      "raise it"
    )
  return ids, learned
