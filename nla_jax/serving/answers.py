"""What is answered: Neuronpedia's objects and frames, by their own names, and those of our own beside them."""

import json
from collections.abc import Sequence
from typing import Any

from nla_jax.autoencoder.explanation import Claim
from nla_jax.autoencoder.nla import Explanation
from nla_jax.conversation.tokens import Tokens

END = b"data: [DONE]\n\n"  # the last frame of a stream that is whole


def encoded(value: Any) -> bytes:
  """JSON in ASCII: half a surrogate pair of a hostile text cannot break it."""
  return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def frame(value: Any) -> bytes:
  """One server-sent event."""
  return b"data: " + encoded(value) + b"\n\n"


def token(tokens: Tokens, i: int, channels: Sequence[str | None] = ()) -> dict[str, Any]:
  """A token with what is known of it."""
  place, count = tokens.fragments[i]
  message = tokens.messages[i]
  channel = channels[message] if message is not None and message < len(channels) else None
  return {
    "token": tokens.word(i),
    "token_id": tokens.ids[i],
    "position": i,
    "fragment_index": place,
    "fragment_count": count,
    # A bare text has no messages, and so no sections.
    "role": tokens.roles[i],
    "section": tokens.sections[i] if any(one is not None for one in tokens.messages) else None,
    "channel": channel,
    "message_index": message,
  }


def description(found: Explanation) -> dict[str, Any]:
  """An explanation with its score; without one the AV's whole answer, which has no score."""
  return {
    "description": found.answer if found.text is None else found.text,
    "mse": found.mse_nrm,
    "cosine_similarity": found.cosine,
  }


def claim(found: Claim) -> dict[str, Any]:
  """A claim of an explanation with the probability that it is true."""
  return {
    "text": found.text,
    "span": list(found.span),
    "field": found.field,
    "level": found.level,
    "confidence": found.confidence,
  }
