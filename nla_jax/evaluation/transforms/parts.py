"""Parts alone, parts deleted, parts of another explanation, and the marks that hold them."""

import re
from collections.abc import Sequence

import numpy as np

from nla_jax.evaluation.fields import fields_of, quotes_of, replaced

_MARKS = re.compile('["“”«»]')
_BOLD = re.compile(r"\*\*|__|^#+\s*|^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_LINES = re.compile(r"\s*\n\s*")


def remove_marks(text: str, random: np.random.Generator) -> str:
  """The text without quotation marks; what they held stays."""
  return _MARKS.sub("", text)


def replace_marks(text: str, random: np.random.Generator) -> str:
  """The text with an asterisk for each quotation mark."""
  return _MARKS.sub("*", text)


def quotes_only(text: str, random: np.random.Generator) -> str:
  """The quotes, a line each, in their marks; nothing where there are none."""
  return "\n".join(f'"{one.text}"' for one in quotes_of(text))


def prose_only(text: str, random: np.random.Generator) -> str:
  """The text without its quotes and their marks; a line that held nothing else is gone."""
  gone = {(one.start - 1, one.end + 1): "" for one in quotes_of(text)}
  bare = replaced(text, gone)
  return "\n\n".join(one.line.text for one in fields_of(bare) if one.content.text)


def other_quotes(texts: Sequence[str | None], other: np.ndarray) -> list[str | None]:
  """Texts with each quote's content replaced by that of another row's text; `other` [n] names the row."""
  swapped = []
  for text, row in zip(texts, other):
    mine = quotes_of(text or "")
    others = quotes_of(texts[row] or "")
    # Where there is nothing to put in its place, the quote stays: the share of changed texts says how often.
    new = {
      (one.start, one.end): others[i % len(others)].text for i, one in enumerate(mine) if others
    }
    swapped.append(text and replaced(text, new))
  return swapped


def without_field(text: str, label: str) -> str:
  """The text without the lines of a label."""
  lines = [one.line.text for one in fields_of(text) if one.label != label]
  return "\n\n".join(lines) if len(lines) < len(fields_of(text)) else text


def only_field(text: str, label: str) -> str:
  """The lines of a label alone; nothing where there are none."""
  return "\n\n".join(one.line.text for one in fields_of(text) if one.label == label)


def without_labels(text: str, random: np.random.Generator) -> str:
  """The text without the labels of its lines."""
  gone = {
    (one.line.start, one.content.start): ""
    for one in fields_of(text)
    if one.label and one.content.text
  }
  return replaced(text, gone)


def strip_format(text: str, random: np.random.Generator) -> str:
  """The text without bold, headings, bullets, numbers of items and blank lines."""
  return _LINES.sub("\n", _BOLD.sub("", text)).strip()
