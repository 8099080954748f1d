"""Tokens of a text or a conversation, each with its words, its role, its message and its section.

A chat template says nothing about where in its output a message stands. So the conversation is rendered a second time
with a mark in place of each message's words: what stands between the marks is what the template writes around them,
and the words are found between these in the first rendering.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nla_jax.autoencoder.text import MOST_PIECES, cuts_a_character, encode_places
from nla_jax.autoencoder.tokens import special_tokens

# Of a token: what a message says; what was thought before; what the template writes before and after it; and what
# belongs to no message.
CONTENT, REASONING, HEADER, FOOTER = "content", "reasoning", "header", "footer"
SCAFFOLD = "scaffold"
# Stands for a message's words in the second rendering. Digits have no case and are no control characters, so that
# templates that change those leave them alone.
_MARK = "5190{:06}8237"
_MARKS = re.compile("5190[0-9]{6}8237")


class Piece(NamedTuple):
  """A part of a rendered text.

  Attributes:
    text: its characters.
    literal: whether special tokens' strings in it are plain words.
  """

  text: str
  literal: bool = False


class Span(NamedTuple):
  """Characters of a rendered conversation that belong together.

  Attributes:
    start: of the first character.
    end: behind the last one.
    section: `CONTENT`, `REASONING`, `HEADER`, `FOOTER` or `SCAFFOLD`.
    message: index of the message; None of no message.
  """

  start: int
  end: int
  section: str
  message: int | None


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Tokens with what is known of each.

  Attributes:
    ids: as the model reads them.
    text: all characters, as they were tokenised; special tokens are written out.
    starts: of each token, where its characters begin in `text`.
    ends: of each token, where they end. Tokens that share a character (an emoji of several tokens) have the same ones.
    roles: of each token's message; None of no message.
    messages: index of each token's message; None of no message.
    sections: `CONTENT`, `REASONING`, `HEADER`, `FOOTER` or `SCAFFOLD` of each.
  """

  ids: list[int]
  text: str
  starts: list[int]
  ends: list[int]
  roles: list[str | None]
  messages: list[int | None]
  sections: list[str]

  def __len__(self) -> int:
    return len(self.ids)

  def word(self, i: int) -> str:
    """The characters of a token; of one that shares a character with others, that character."""
    return self.text[self.starts[i] : self.ends[i]]

  @functools.cached_property
  def fragments(self) -> list[tuple[int, int]]:
    """Of each token (its place, how many) among those that share its characters: (0, 1) of one that shares none."""
    places = list(zip(self.starts, self.ends))
    found, begin = [], 0
    for i in range(len(places)):
      if i + 1 == len(places) or places[i + 1] != places[i] or places[i][0] == places[i][1]:
        found += [(k, i + 1 - begin) for k in range(i + 1 - begin)]
        begin = i + 1
    return found


def tokens_of_pieces(
  tokenizer: Any, pieces: Sequence[Piece], spans: Sequence[Span], roles: Sequence[str]
) -> Tokens:
  """Tokens of a text that is tokenised in pieces.

  Args:
    tokenizer: a fast one, which knows where a token's characters are.
    pieces: of the text, in order.
    spans: of the whole text, in order and without gaps; empty where it is no conversation.
    roles: of the messages.
  """
  ids, starts, ends, text = [], [], [], ""
  for piece in pieces:
    of_piece, places = _encode_piece(tokenizer, piece)
    ids += of_piece
    starts += [len(text) + start for start, _ in places]
    ends += [len(text) + end for _, end in places]
    text += piece.text

  # A token belongs where its first character is.
  of_tokens, i = [], 0
  for start in starts:
    while i + 1 < len(spans) and start >= spans[i].end:
      i += 1
    of_tokens.append(spans[i] if spans else Span(0, 0, CONTENT, None))
  messages = [span.message for span in of_tokens]
  named = [None if message is None else roles[message] for message in messages]
  return Tokens(ids, text, starts, ends, named, messages, [span.section for span in of_tokens])


def _encode_piece(tokenizer: Any, piece: Piece) -> tuple[list[int], list[tuple[int, int]]]:
  if piece.literal:
    return encode_places(tokenizer, piece.text)
  found = tokenizer(piece.text, add_special_tokens=False, return_offsets_mapping=True)
  return found["input_ids"], found["offset_mapping"]


def tokens_of_text(tokenizer: Any, text: str) -> Tokens:
  """Tokens of a plain text behind the BOS, where the tokenizer puts one; it is written out."""
  ids, places = encode_places(tokenizer, text, special=True)
  before = 0
  while before < len(ids) and places[before] == (0, 0):
    before += 1
  written = [tokenizer.decode(ids[i]) for i in range(before)]

  lengths = [0, *itertools.accumulate(map(len, written))]
  shift = lengths[-1]
  places = [*itertools.pairwise(lengths), *((a + shift, b + shift) for a, b in places[before:])]
  sections = [SCAFFOLD] * before + [CONTENT] * (len(ids) - before)
  return _of_no_message(ids, "".join(written) + text, places, sections)


def tokens_of_ids(tokenizer: Any, ids: Sequence[int]) -> Tokens:
  """Tokens that were made elsewhere, with the words that they decode to."""
  text, places, i = "", [], 0
  special, ids = special_tokens(tokenizer), list(ids)
  while i < len(ids):
    # Tokens that make one character together stand at one place.
    end = i + 1
    while end < len(ids) and end - i < MOST_PIECES and cuts_a_character(tokenizer, ids[i:end]):
      end += 1
    # What a token says depends on the one before it: some decoders leave out the first blank.
    before = tokenizer.decode(ids[max(i - 1, 0) : i])
    word = tokenizer.decode(ids[max(i - 1, 0) : end])[len(before) :]
    places += [(len(text), len(text) + len(word))] * (end - i)
    text, i = text + word, end
  sections = [SCAFFOLD if token in special else CONTENT for token in ids]
  return _of_no_message(ids, text, places, sections)


def _of_no_message(ids, text: str, places: Sequence[tuple[int, int]], sections) -> Tokens:
  starts, ends = [start for start, _ in places], [end for _, end in places]
  nobody = [None] * len(ids)
  return Tokens(list(ids), text, starts, ends, nobody, list(nobody), sections)


def spans_of(
  text: str,
  messages: Sequence[Mapping[str, Any]],
  write: Callable[[Sequence[Mapping[str, Any]]], str],
  special: Sequence[str],
) -> list[Span]:
  """Which characters of a rendered conversation are whose.

  Args:
    text: the rendering.
    messages: of the conversation.
    write: renders messages, as `text` was.
    special: strings of the tokenizer's special tokens.

  Returns:
    spans of all of `text`, in order. A template that writes something else around other words leaves one span of no
    message.
  """
  marked = [{**one, "content": _MARK.format(i)} for i, one in enumerate(messages)]
  around = _MARKS.split(write(marked))
  if len(around) != len(messages) + 1 or not text.startswith(around[0]):
    return [Span(0, len(text), SCAFFOLD, None)]

  ends_turn = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
  spans, at = _before(around[0], 0, ends_turn, None, 0), len(around[0])
  for i, one in enumerate(messages):
    # 1. The message's words, as the template left them, up to what it writes behind them.
    end = _end_of_words(text, at, one.get("content") or "", around[i + 1])
    if end is None:
      return [Span(0, len(text), SCAFFOLD, None)]
    spans.append(Span(at, end, CONTENT, i))

    # 2. What stands between these words and the next message's.
    following = i + 1 if i + 1 < len(messages) else None
    spans += _before(around[i + 1], end, ends_turn, i, following)
    at = end + len(around[i + 1])
  parted = [part for span in spans for part in _with_reasoning(text, span, messages)]
  return [span for span in parted if span.start < span.end]


def _with_reasoning(
  text: str, span: Span, messages: Sequence[Mapping[str, Any]]
) -> tuple[Span, ...]:
  """A message's header, parted at what the message thought."""
  if span.section != HEADER or span.message is None:
    return (span,)
  thought = (messages[span.message].get("reasoning_content") or "").strip()
  at = text.find(thought, span.start, span.end) if thought else -1
  if at < 0:
    return (span,)
  end = at + len(thought)
  return (
    span._replace(end=at),
    Span(at, end, REASONING, span.message),
    span._replace(start=end),
  )


def _end_of_words(text: str, at: int, words: str, behind: str) -> int | None:
  """Where a message's words end that begin at `at`; None where they are not found."""
  for one in (words, words.strip(), words.rstrip(), words.lstrip()):
    if text.startswith(one, at) and text.startswith(behind, at + len(one)):
      return at + len(one)
  # Changed by the template (another case, a removed part): up to the next of what it writes behind.
  end = text.find(behind, at) if behind else len(text)
  return None if end < 0 else end


def _before(
  text: str, at: int, ends_turn: re.Pattern, before: int | None, following: int | None
) -> list[Span]:
  """Spans of what a template writes between the words of two messages.

  The end of the first one's turn is a special token with the blanks behind it. What comes before belongs to that
  message's content (a call of a tool), what comes after to the next message's header, or to no message.
  """
  stop = None if before is None else ends_turn.search(text)
  if stop is not None:
    rest = text[stop.end() :]
    cut, footer = stop.start(), stop.end() + len(rest) - len(rest.lstrip())
  else:
    # Without an end of the turn all of it is the next message's, or the last one's.
    cut, footer = 0, len(text) if following is None and before is not None else 0
  end = at + len(text)
  ahead = SCAFFOLD if following is None else HEADER
  return [
    Span(at, at + cut, CONTENT, before),
    Span(at + cut, at + footer, FOOTER, before),
    Span(at + footer, end, ahead, following),
  ]
