"""The one door between texts and token ids: what a text is, and what of it comes back.

- A text is what UTF-8 can hold. Half of a surrogate pair ("\\ud83d" is valid JSON) is no character: `well_formed`
  refuses it, at every reader of people's files with the line that it stands on.
- A text says nothing to the model but words: the strings of tokens that steer a model stay plain text in documents,
  messages and explanations. Those are the special tokens, and the added ones in brackets that lack the flag
  (`bracketed`). Words that a fine-tune has added, and runs of blanks, are tokens of a text like any other.
- A text may be endless. Where only its first tokens are wanted, only its beginning is tokenised (`first_ids`).
- Tokens may cut a character apart. What is left of one at an end, or what a model sampled that is none, is left out
  when ids become text (`decode`): it would be taught and shown as U+FFFD.
"""

import functools
import json
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from nla_jax.errors import NLAError

_NO_CHARACTER = "\ufffd"  # what decoders write for bytes that are none
_OPENING, _CLOSING = "<[{|", ">]}|"
MOST_PIECES = 4  # tokens that a character may be cut into, one a byte
LONG = 64  # characters for each wanted token, beyond which a text is not tokenised as a whole


def well_formed(text: str, what: str = "the text") -> str:
  """Returns the text.

  Args:
    text: from outside.
    what: the text's name in the message; of a file, with the line.

  Raises:
    NLAError: it holds half of a surrogate pair.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise NLAError(
      f"{what} holds half of a surrogate pair (\\u{ord(text[error.start]):04x} at character {error.start}), which is "
      "no character; write the whole character, or take it out"
    ) from None
  return text


def bracketed(tokenizer) -> dict[int, str]:
  """{id: string} of added tokens that steer a model, by their look, and are not flagged as special: `<think>`."""
  return dict(_bracketed(tokenizer, len(tokenizer)))


@functools.lru_cache(maxsize=16)
def _bracketed(tokenizer, _: int) -> tuple[tuple[int, str], ...]:
  # The number of tokens is part of the key: a tokenizer may be given more of them.
  added = tokenizer.added_tokens_decoder.items()
  return tuple(
    (token, str(one)) for token, one in added if not one.special and _in_brackets(str(one))
  )


def _in_brackets(string: str) -> bool:
  inside = string.strip()
  return len(inside) > 2 and inside[0] in _OPENING and inside[-1] in _CLOSING


def encode(tokenizer, text: str, *, special: bool = False, at_most: int | None = None) -> list[int]:
  """Token ids of plain text; `special` lets the tokenizer add its BOS.

  Strings of tokens that steer a model stay plain text. Of the ids come the first `at_most`; None for all.

  Raises:
    NLAError: as `well_formed`.
  """
  well_formed(text)
  return first_ids(functools.partial(_encode, tokenizer, special=special), text, at_most)


def interpreted(tokenizer, text: str, at_most: int | None = None) -> list[int]:
  """Ids of what a template wrote, its special tokens among them; the first `at_most`, None for all."""
  ids_of = functools.partial(tokenizer, add_special_tokens=False)
  return first_ids(lambda one: list(ids_of(one)["input_ids"]), text, at_most)


def first_ids(
  ids_of: Callable[[str], list[int]], text: str, at_most: int | None = None
) -> list[int]:
  """The first ids of a text, in time and memory of what is asked for, however long the text is.

  Args:
    ids_of: tokenises a text.
    text: of any length.
    at_most: how many ids; None for all.
  """
  if at_most is None:
    return ids_of(text)

  # Where a text is cut, only the tokens near the cut change: what twice as much text leaves as it is stays so.
  before, size = None, LONG * at_most // 2
  while 2 * size < len(text):
    ids = ids_of(text[:size])
    if len(ids) > at_most and ids[:at_most] == before:
      return before
    before, size = ids[:at_most], 2 * size
  return ids_of(text)[:at_most]


def _encode(tokenizer, text: str, special: bool) -> list[int]:
  plain = _plain(tokenizer, len(tokenizer))
  if plain is not None:
    return plain.encode(text, add_special_tokens=special).ids

  # A document that holds "<|im_end|>" must not end a turn.
  return list(tokenizer(text, add_special_tokens=special, split_special_tokens=True)["input_ids"])


def encode_places(
  tokenizer, text: str, *, special: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
  """As `encode`, and where the characters of each token begin and end in the text; of a BOS (0, 0)."""
  well_formed(text)
  plain = _plain(tokenizer, len(tokenizer))
  if plain is not None:
    found = plain.encode(text, add_special_tokens=special)
    return found.ids, found.offsets
  found = tokenizer(
    text, add_special_tokens=special, split_special_tokens=True, return_offsets_mapping=True
  )
  return list(found["input_ids"]), [tuple(place) for place in found["offset_mapping"]]


@functools.lru_cache(maxsize=16)
def _plain(tokenizer, count: int) -> Tokenizer | None:
  """A copy that reads no token that steers a model; None where the tokenizer itself can be told so."""
  unflagged = {string for _, string in _bracketed(tokenizer, count)}
  if not unflagged or not getattr(tokenizer, "is_fast", False):
    return None

  state = json.loads(tokenizer.backend_tokenizer.to_str())
  for one in state["added_tokens"]:
    one["special"] = one["special"] or one["content"] in unflagged
  plain = Tokenizer.from_str(json.dumps(state))
  plain.encode_special_tokens = True

  # What some earlier call left switched on would cut texts, or fill them up.
  plain.no_truncation()
  plain.no_padding()
  return plain


def decode(tokenizer, ids: Sequence[int], *, special: bool = False) -> str:
  """The words of tokens, without what is left of characters that are cut apart.

  Args:
    tokenizer: of the model.
    ids: token ids.
    special: whether special tokens are written, too.
  """
  return tokenizer.decode(ids, skip_special_tokens=not special).replace(_NO_CHARACTER, "")


def next_word(tokenizer, context: Sequence[int], token: int) -> str:
  """What a token says behind a context: its text, or the character that it completes; "" where it completes none."""
  alone = tokenizer.decode([token], skip_special_tokens=True)
  if _NO_CHARACTER not in alone:
    return alone.strip()

  tail = list(context[1 - MOST_PIECES :])
  before, after = decode(tokenizer, tail), decode(tokenizer, [*tail, token])
  return after.removeprefix(before).strip() if after.startswith(before) else ""


def in_context(
  tokenizer, ids: Sequence[int], at: int, before: int, after: int, *, special: bool = False
) -> tuple[str, str, str]:
  """Returns the text before a token, the token's own, and the text after it.

  Of a token that is a part of a character the whole character is shown.

  Args:
    tokenizer: of the model.
    ids: token ids of a document.
    at: index of the token.
    before: tokens shown before it, at most.
    after: tokens shown after it, at most.
    special: whether special tokens are written, too.
  """
  begin, end = at, at + 1
  while at - begin < MOST_PIECES - 1 and cuts_a_character(
    tokenizer, ids[max(begin - MOST_PIECES, 0) : begin]
  ):
    begin -= 1
  while end - at < MOST_PIECES and end < len(ids) and cuts_a_character(tokenizer, ids[begin:end]):
    end += 1

  parts = ids[max(begin - before, 0) : begin], ids[begin:end], ids[end : end + after]
  return tuple(decode(tokenizer, part, special=special) for part in parts)


def cuts_a_character(tokenizer, ids: Sequence[int]) -> bool:
  """Says whether tokens end inside a character."""
  return len(ids) > 0 and tokenizer.decode(ids, skip_special_tokens=True).endswith(_NO_CHARACTER)
