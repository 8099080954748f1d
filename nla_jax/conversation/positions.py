"""Which tokens are meant: by index, by role, by words, every so many, or so many drawn by a seed.

A choice in words is one or more of these, joined by `&`, each of which keeps some of what the one before it left:

  all           every token, what the template writes among them
  words         tokens of what the messages say
  reasoning     tokens of what the assistant thought before it answered
  user, …       a role: tokens of what its messages say
  last          the last one
  every:N       the first and every N-th after it
  random:N      N of them, drawn by the seed, in order
  text:WORDS    tokens of each occurrence of these characters (to the end of the choice)
  end:WORDS     the last token of each occurrence
  5,12,-1       indices; negative ones count from the end
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder import given
from nla_jax.conversation.tokens import CONTENT, REASONING, Tokens
from nla_jax.errors import NLAError

ROLES = ("system", "developer", "user", "assistant", "tool")
_INDICES = re.compile(r"\s*-?\d+(\s*,\s*-?\d+)*\s*")


def choose(tokens: Tokens, positions: Any = "last", *, seed: int = 0) -> list[int]:
  """Indices of the tokens that are meant, from 0.

  Args:
    tokens: of the text or conversation.
    positions: an index, several, or a choice in words as the module says; None is all of what is said.
    seed: of `random:N`.

  Raises:
    NLAError: an index outside, a choice that is not known, or one that leaves nothing.
  """
  if positions is None:
    positions = "words"
  if isinstance(positions, str):
    return _by_words(tokens, positions, seed)
  return _by_index(tokens, positions)


def _by_index(tokens: Tokens, positions: Any) -> list[int]:
  found = given.positions(positions, len(tokens))
  if not found:
    raise NLAError("positions are empty: name at least one token, or a choice such as 'last'")
  return found


def _by_words(tokens: Tokens, choice: str, seed: int) -> list[int]:
  if not choice.strip():
    raise NLAError("positions are empty: name at least one token, or a choice such as 'last'")
  kept, rest = list(range(len(tokens))), choice
  while rest.strip():
    # What is looked for may hold any character.
    searched = rest.lstrip().startswith(("text:", "end:"))
    one, rest = (rest, "") if searched else _cut(rest)
    kept = _keep(tokens, kept, one.strip() if not searched else one.lstrip(), choice, seed)
    if not kept:
      raise NLAError(
        f"positions={choice!r}: {one.strip()!r} leaves none of the {len(tokens)} tokens"
      )
  return kept


def _cut(choice: str) -> tuple[str, str]:
  one, _, rest = choice.partition("&")
  return one, rest


def _keep(tokens: Tokens, kept: Sequence[int], one: str, choice: str, seed: int) -> list[int]:
  """Those of the tokens that one part of a choice means."""
  name, _, value = one.partition(":")
  if one == "all":
    return list(kept)
  if one == "words":
    return [i for i in kept if tokens.sections[i] == CONTENT]
  if one == "reasoning":
    return [i for i in kept if tokens.sections[i] == REASONING]
  if one in ROLES or one in tokens.roles:
    return [i for i in kept if tokens.roles[i] == one and tokens.sections[i] == CONTENT]
  if one == "last":
    return list(kept[-1:])
  if name in ("text", "end") and value:
    return _of_characters(tokens, kept, value, last=name == "end")
  if name in ("every", "random") and value.strip().isdigit() and int(value):
    return _thinned(kept, name, int(value), seed)
  if _INDICES.fullmatch(one):
    chosen = set(_by_index(tokens, [int(i) for i in one.split(",")]))
    return [i for i in kept if i in chosen]
  raise NLAError(
    f"positions={choice!r}: {one!r} is no choice; expected all, words, reasoning, last, {', '.join(ROLES)}, every:N, "
    "random:N, text:WORDS, end:WORDS, or indices such as 5,12,-1"
  )


def _thinned(kept: Sequence[int], name: str, n: int, seed: int) -> list[int]:
  if name == "every":
    return list(kept[::n])
  drawn = np.random.default_rng(seed).permutation(len(kept))[:n]
  return [kept[i] for i in sorted(drawn)]


def _of_characters(tokens: Tokens, kept: Sequence[int], words: str, last: bool) -> list[int]:
  """Tokens of each occurrence of `words` in the text."""
  found = set()
  for match in re.finditer(re.escape(words), tokens.text):
    inside = [i for i in kept if tokens.starts[i] < match.end() and tokens.ends[i] > match.start()]
    found.update(inside[-1:] if last else inside)
  return sorted(found)
