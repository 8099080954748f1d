"""Tokens of what the assistant said, and what a pair writes about some of them.

Tool calls are left out, since a template writes them around the content; what was thought before an answer counts.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_jax.auditing.transcripts import Transcript
from nla_jax.autoencoder.text import well_formed
from nla_jax.autoencoder.tokens import refuse_longer
from nla_jax.conversation.tokens import CONTENT, REASONING, Tokens
from nla_jax.errors import NLAError

TOKENS = 50  # of a transcript, as in the paper


@dataclasses.dataclass(frozen=True)
class Turns:
  """A transcript as tokens.

  Attributes:
    transcript: what was tokenised.
    tokens: all of it, as the target sees it.
    said: indices of the tokens that the assistant said or thought.
  """

  transcript: Transcript
  tokens: Tokens
  said: list[int]


@dataclasses.dataclass(frozen=True)
class Read:
  """Explanations of some tokens of a transcript.

  Attributes:
    turns: the transcript.
    positions: the tokens that were read, in order.
    activations: [n, d_model] of these tokens.
    texts: the explanation of each; None where the AV gave none.
  """

  turns: Turns
  positions: list[int]
  activations: np.ndarray
  texts: list[str | None]


def turns_of(nla: Any, transcript: Transcript, longest: int | None = None) -> Turns:
  """The tokens of a transcript, and which of them the assistant said.

  Args:
    nla: a loaded pair.
    transcript: what is audited.
    longest: tokens of a transcript, at most; None for what the model was made for.

  Raises:
    NLAError: the template does not know a role, the transcript is too long, or the assistant says nothing in it.
  """
  try:
    for one in transcript.messages:
      well_formed(one["content"], "a message")
    tokens = nla.tokens(list(transcript.messages))
  except NLAError as error:
    raise NLAError(f"transcript {transcript.id}: {error}") from None

  longest = nla.pair.verbalizer.architecture.max_positions if longest is None else longest
  try:
    refuse_longer(tokens.ids, longest)
  except NLAError as error:
    raise NLAError(f"transcript {transcript.id}: {error}") from None
  said = [
    i
    for i, (role, section) in enumerate(zip(tokens.roles, tokens.sections))
    if role == "assistant" and section in (CONTENT, REASONING)
  ]
  if not said:
    raise NLAError(
      f"transcript {transcript.id}: the assistant says nothing in it; leave it out, or label its turns 'assistant'"
    )
  return Turns(transcript, tokens, said)


def drawn(said: Sequence[int], n: int, seed: int, name: str) -> list[int]:
  """n of some tokens, in order; the draw depends on the seed and the transcript's name, not on what else is read."""
  words = np.frombuffer(name.encode(errors="replace").ljust(4, b"\0"), np.uint8)
  order = np.random.default_rng([seed, *words.tolist()]).permutation(len(said))[:n]
  return [said[i] for i in sorted(order)]


def read_tokens(nla: Any, turns: Turns, positions: Sequence[int], *, seed: int = 0) -> Read:
  """What a pair writes about tokens of one transcript, one draw each.

  Raises:
    NLAError: as `NLA.activations`.
  """
  (rows,) = nla.activations([turns.tokens.ids], [list(positions)])
  explanations = nla.explain(rows, seed=seed, streams=np.asarray(positions))
  return Read(turns, list(positions), rows, [one.text for one in explanations])


def before(turns: Turns, position: int, characters: int = 240) -> str:
  """What stands before and at a token, at most so many characters."""
  end = turns.tokens.ends[position]
  return turns.tokens.text[max(0, end - characters) : end]
