"""What vectors do to the next token: of words that are named, and of those that moved most."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder.text import decode, encode, well_formed
from nla_jax.errors import NLAError
from nla_jax.reading.complete import Completions
from nla_jax.reading.steered import Arm, NextToken

_SHOWN = 8  # tokens that rose, and that fell


def first_tokens(tokenizer, edit: Any, named: Sequence[str]) -> dict[str, list[int]]:
  """{word: ids of the tokens with which it may begin}, of the edit first, the new word before the old one.

  Args:
    tokenizer: of the target.
    edit: {word: another}, or a new explanation, which names no words.
    named: further words.

  Raises:
    NLAError: a further word begins with no token, or with the same one as another of them.
  """
  edits = (
    [] if isinstance(edit, str) else [word for old, new in edit.items() for word in (new, old)]
  )
  found = {}
  for word in dict.fromkeys([*edits, *named]):
    # Behind a space, and at the beginning of a line or an answer.
    firsts = [encode(tokenizer, well_formed(text))[:1] for text in (f" {word}", word)]
    ids = [first[0] for first in firsts if first and decode(tokenizer, first).strip()]
    if ids:
      found[word] = list(dict.fromkeys(ids))
    elif word in named:
      raise NLAError(f"words: {word!r} begins with no token that can be scored; name another word")

  # Two words that begin alike would get one number, and look as if they moved together.
  for word in named:
    twins = [one for one in named if one != word and found[one][0] == found[word][0]]
    if twins:
      raise NLAError(
        f"words: {word!r} and {twins[0]!r} begin with the same token, so the next token does not tell them apart"
      )
  return found


def likeliest_tokens(words: dict[str, list[int]], logprobs: np.ndarray) -> dict[str, int]:
  """{word: the token with which it begins here}, by the unsteered model."""
  return {word: max(ids, key=lambda token: logprobs[token]) for word, ids in words.items()}


def arms_of(
  tokenizer, rows: Sequence[tuple[str, float]], completions: Completions, ids: dict[str, int]
) -> list[Arm]:
  """What each row did, beside the first one.

  Args:
    tokenizer: of the target.
    rows: (name, strength) of each; the first is the model without a vector.
    completions: of the rows.
    ids: {word: the token that stands for it}.
  """
  before, arms = completions.logprobs[0], []
  for (name, strength), logprobs, samples in zip(
    rows, completions.logprobs, completions.tokens, strict=True
  ):
    # By probability: of log-probabilities the largest changes are those of tokens that nobody would ever write.
    change = np.exp(logprobs) - np.exp(before)
    order = np.argsort(change, kind="stable")

    def shown(tokens, after=logprobs):
      return [
        NextToken(int(i), tokenizer.decode([int(i)]), float(before[i]), float(after[i]))
        for i in tokens
      ]

    arms.append(
      Arm(
        name,
        strength,
        [decode(tokenizer, one) for one in samples],
        {word: float(logprobs[i]) for word, i in ids.items()},
        {word: float(logprobs[i] - before[i]) for word, i in ids.items()},
        shown([logprobs.argmax()])[0],
        shown([i for i in order[::-1][:_SHOWN] if change[i] > 0]),
        shown([i for i in order[:_SHOWN] if change[i] < 0]),
        float(np.sum(np.exp(logprobs, dtype=np.float64) * (logprobs - before))),
      )
    )
  return arms
