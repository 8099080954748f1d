"""Where an assistant's turn begins and ends, as a chat template writes it."""

from collections.abc import Sequence
from typing import Any

from nla_jax.autoencoder.chat import ANSWERED, ASKED, TemplateError, render, written
from nla_jax.autoencoder.text import interpreted
from nla_jax.autoencoder.tokens import flagged_tokens
from nla_jax.errors import NLAError


def opening(tokenizer) -> list[int]:
  """Token ids that the chat template writes before the first words of every conversation that a user begins.

  Empty without a chat template.
  """
  if tokenizer.chat_template is None:
    return []
  # Words that begin otherwise, and that no template writes by itself.
  words = (f"a {ASKED}", f"Z {ANSWERED}")
  one, other = (render(tokenizer, [{"role": "user", "content": text}]) for text in words)
  same = [first == second for first, second in zip(one, other)]
  return one[: same.index(False)]


def close_of_turn(tokenizer, ends: Sequence[int] = ()) -> tuple[int, ...]:
  """Ids between an assistant's words and the end of its turn; the last of them ends it.

  Args:
    tokenizer: with a chat template.
    ends: tokens that end a turn by the model's own files.

  Raises:
    NLAError: the template does not write an assistant's words, or nothing ends a turn.
  """
  # 1. What the template writes behind an assistant's words.
  messages = [
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": ANSWERED},
  ]
  parts = written(tokenizer, messages).split(ANSWERED)
  if len(parts) != 2:
    raise TemplateError(f"writes what an assistant says {len(parts) - 1} times, expected once")

  # 2. Up to the first token that no words give. What a template writes behind it is never sampled.
  ids = _behind(tokenizer, parts[1])
  for ending in _endings(tokenizer, ends):
    for index, token in enumerate(ids):
      if token in ending:
        return tuple(ids[: index + 1])

  last = next((end for end in (tokenizer.eos_token_id, *ends) if end is not None), None)
  if last is None:
    raise NLAError(
      "the chat template closes a turn without a special token and the tokenizer has no eos_token, so "
      "sampling would never stop; give the tokenizer an eos_token"
    )
  return (*ids, last)


def _behind(tokenizer, tail: str) -> list[int]:
  """Ids of what stands behind an answer, judged there: some tokenizers put a blank before every text."""
  before, whole = (interpreted(tokenizer, text) for text in (">", f">{tail}"))
  return whole[len(before) :] if whole[: len(before)] == before else interpreted(tokenizer, tail)


def _endings(tokenizer, ends: Sequence[int]) -> tuple[set[int], set[int]]:
  """Tokens that end a turn where a template writes them: special ones and those of the files; else added ones."""
  # A fine-tune often adds its "<|im_end|>" without the flag. Added blanks (Gemma has such) are words' own.
  added = {token for token, one in tokenizer.added_tokens_decoder.items() if str(one).strip()}
  unknown = {tokenizer.unk_token_id}
  return (set(flagged_tokens(tokenizer)) | set(ends)) - unknown, added - unknown


def stop_ids(tokenizer, close: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
  """Every token at which sampling stops; the one that closes a turn comes last, and fills rows up."""
  named: list[Any] = [*ends, tokenizer.eos_token_id]
  others = [int(end) for end in dict.fromkeys(named) if end is not None and end != close[-1]]
  return (*others, int(close[-1]))
