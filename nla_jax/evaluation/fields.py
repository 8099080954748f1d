"""The parts of an explanation: its fields, the items of a list, its sentences and its quotes.

The readout teacher writes a paragraph a feature (`Next: a, b`, `About: c, d`, `Ends: "the last words"`), and an AV that
learned from it does too. Explanations of other teachers are prose or bullets; they have the same parts, without labels.
Every part is a span of the text, so that what is changed or deleted is exactly what was read.
"""

import re
from typing import NamedTuple

LABELS = ("Next", "About", "Ends")  # of the readout teacher, in its order
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_LABEL = re.compile(r"\s*(?:\*\*)?(\w+)(?:\*\*)?:(?:\*\*)?(?=\s|$)")
_BULLET = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+")
_QUOTE = re.compile(r'"([^"\n]*)"|“([^”\n]*)”|«([^»\n]*)»')
_SENTENCE = re.compile(r"\S.*?(?:[.!?][\"”')]*(?=\s)|$)", re.DOTALL)
_SEPARATOR = ", "
_LONGEST = 4  # words of an item; what has longer parts between its commas is a sentence


class Span(NamedTuple):
  """A part of a text.

  Attributes:
    start: index of its first character.
    end: index behind its last one.
    text: the characters.
  """

  start: int
  end: int
  text: str


class Field(NamedTuple):
  """A line that says something.

  Attributes:
    label: what it is about, "Next" of `Next: a, b`; "" where it has none.
    line: the whole line.
    content: what stands behind the label or the bullet.
    bullet: whether it is an item of a list of lines.
  """

  label: str
  line: Span
  content: Span
  bullet: bool


def span(text: str, start: int, end: int) -> Span:
  """The characters from `start` to `end`, without blanks at either end."""
  part = text[start:end]

  left = len(part) - len(part.lstrip())
  part = part.strip()
  return Span(start + left, start + left + len(part), part)


def fields_of(text: str) -> list[Field]:
  """The lines of a text that are not blank, in order."""
  found = []
  for match in _LINE.finditer(text):
    # A bullet may have a label: "- **Tone:** dry".
    bullet = _BULLET.match(match.group())
    after = bullet.end() if bullet else 0
    label = _LABEL.match(match.group(), after)
    begin = label.end() if label else after

    found.append(
      Field(
        label.group(1) if label else "",
        span(text, *match.span()),
        span(text, match.start() + begin, match.end()),
        bullet is not None,
      )
    )
  return found


def items_of(text: str, field: Field) -> list[Span]:
  """The parts between the commas of a labelled list; none where the field is a quote or a sentence.

  A comma may be an item itself: `Next: ,, the` holds two.
  """
  if not field.label or not field.content.text or is_quote(field.content.text):
    return []

  items, start = [], field.content.start
  parts = field.content.text.split(_SEPARATOR)
  for part in parts:
    items.append(span(text, start, start + len(part)))
    start += len(part) + len(_SEPARATOR)

  # One long part is enough: the others are the rest of its sentence.
  items = [item for item in items if item.text]
  return items if all(len(item.text.split()) <= _LONGEST for item in items) else []


def sentences_of(text: str, field: Field) -> list[Span]:
  """The sentences of a field; a field without a full stop is one."""
  begin = field.content.start
  matches = _SENTENCE.finditer(field.content.text)
  return [Span(begin + one.start(), begin + one.end(), one.group()) for one in matches]


def quotes_of(text: str) -> list[Span]:
  """What stands within quotation marks, without them, in order."""
  found = []
  for field in fields_of(text):
    begin, content = field.content.start, field.content.text
    if field.label and is_quote(content):
      # The end of a document may hold marks itself: the outer ones are the quote's.
      found.append(Span(begin + 1, begin + len(content) - 1, content[1:-1]))
      continue

    for match in _QUOTE.finditer(content):
      group = match.lastindex
      found.append(Span(begin + match.start(group), begin + match.end(group), match.group(group)))
  return found


def is_quote(content: str) -> bool:
  """Says whether all of a content stands within one pair of quotation marks."""
  return len(content) > 1 and content[0] == content[-1] == '"'


def replaced(text: str, parts: dict[tuple[int, int], str]) -> str:
  """The text with the characters of some spans, (start, end), replaced; spans do not overlap."""
  pieces, last = [], 0
  for (start, end), new in sorted(parts.items()):
    pieces += [text[last:start], new]
    last = end

  return "".join([*pieces, text[last:]])
