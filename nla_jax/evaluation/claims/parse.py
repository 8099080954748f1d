"""The claims of an explanation: exactly in the readout format, and of prose what can be checked without a reader.

Readout: each item of `Next:` and `About:` is a claim, and so is the quote of `Ends:`. Prose: each quote, number and
name is one; themes of prose need a reader of words (`extract`), which fills the same schema.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nla_jax.autoencoder.explanation import Claim
from nla_jax.errors import NLAError
from nla_jax.evaluation.fields import LABELS, Field, Span, fields_of, items_of, quotes_of

LEVELS = ("theme", "entity", "detail")
NEXT, ABOUT, ENDS = LABELS
_NUMBER = re.compile(r"\b\d[\d.,:/]*\d\b|\b\d\b|\b\d+\b")
# Capitalised words that begin no sentence: what stands before them is a small letter, a digit or a comma.
_NAME = re.compile(r"(?<=[a-z0-9,;] )[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*")


def claims_of(text: str | None) -> list[Claim]:
  """The claims of an explanation, in the order of its words; none of one that did not parse."""
  found = []
  for field in fields_of(text or ""):
    parts = _of_readout(text, field) if field.label in LABELS else _of_prose(text, field)
    found += parts
  found.sort(key=lambda one: one[0].start)
  return [
    Claim(i, part.text, (part.start, part.end), kind, level)
    for i, (part, kind, level) in enumerate(found)
  ]


def _of_readout(text: str, field: Field) -> list[tuple[Span, str, str]]:
  if field.label == ENDS:
    quotes = _within(quotes_of(text), field)
    # A quote that lost its marks is still what the text is said to end with.
    return [(one, ENDS, "detail") for one in quotes or [field.content] if one.text]
  otherwise = "theme" if field.label == ABOUT else "detail"
  items = items_of(text, field) or ([field.content] if field.content.text else [])
  return [(one, field.label, _level(one.text, otherwise)) for one in items]


def _level(word: str, otherwise: str) -> str:
  # Items stand as they are written in the document: a capital is a name's.
  return "entity" if word[:1].isupper() else otherwise


def _of_prose(text: str, field: Field) -> list[tuple[Span, str, str]]:
  quotes = _within(quotes_of(text), field)
  found = [(one, "quote", "detail") for one in quotes if one.text.strip()]
  for pattern, kind, level in ((_NUMBER, "number", "detail"), (_NAME, "name", "entity")):
    for match in pattern.finditer(text, field.content.start, field.content.end):
      inside = any(one.start <= match.start() < one.end for one in quotes)
      if not inside:
        found.append((Span(match.start(), match.end(), match.group()), kind, level))
  return found


def _within(spans: Sequence[Span], field: Field) -> list[Span]:
  return [one for one in spans if field.line.start <= one.start <= field.line.end]


def from_provider(text: str, rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
  """The claims that a reader of words found in prose.

  Args:
    text: the explanation.
    rows: objects with `text`, words of the explanation; `level`; and, where they were judged, `verdict` and `related`.

  Raises:
    NLAError: a claim is not in the explanation, or has no known level.
  """
  found, after = [], {}
  for i, row in enumerate(rows):
    words, level = row.get("text"), row.get("level")
    if level not in LEVELS:
      raise NLAError(f"claim {i} has the level {level!r}; expected one of {', '.join(LEVELS)}")

    # A claim that is made twice stands at two places.
    start = text.find(words, after.get(words, 0)) if isinstance(words, str) and words else -1
    if start < 0:
      raise NLAError(f"claim {i}, {words!r:.60}, is not in the explanation: give its very words")
    after[words] = start + 1
    judged = {key: row[key] for key in ("verdict", "related") if isinstance(row.get(key), bool)}
    span = (start, start + len(words))
    found.append(Claim(i, words, span, row.get("field") or "sentence", level, **judged))
  return found
