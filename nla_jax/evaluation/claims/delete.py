"""Explanations without one claim, and without as many other words: the AR as a verifier of claims."""

import re

import numpy as np

from nla_jax.autoencoder.explanation import Claim
from nla_jax.evaluation.fields import fields_of, items_of, replaced
from nla_jax.evaluation.transforms.words import tidy

_WORD = re.compile(r"\S+")


def without(text: str, claim: Claim) -> str:
  """The text without a claim and what separates it from others; a line that said nothing else is gone."""
  start, end = claim.span
  for field in fields_of(text):
    if not field.line.start <= start < field.line.end:
      continue

    # 1. The only thing that a line says: the line.
    items = items_of(text, field)
    around = text[field.content.start : start] + text[end : field.content.end]
    if not re.search(r"\w", around) and len(items) < 2:
      others = [one.line.text for one in fields_of(text) if one.line != field.line]
      return "\n\n".join(others)

    # 2. An item of a list: with one comma.
    for i, item in enumerate(items):
      if (item.start, item.end) == (start, end):
        gone = (start, items[i + 1].start) if i + 1 < len(items) else (items[i - 1].end, end)
        return replaced(text, {gone: ""})

    # 3. Words of a sentence: with the marks of a quote.
    if text[start - 1 : start] in ('"', "“", "«") and text[end : end + 1] in ('"', "”", "»"):
      start, end = start - 1, end + 1
    return tidy(replaced(text, {(start, end): ""}))
  return text


def without_random(text: str, claim: Claim, random: np.random.Generator) -> str | None:
  """The text without as many words in a row that are no part of the claim; None where it has not so many.

  Labels stay, and the words may cross from one item to the next: a clause, not another claim.
  """
  n = max(len(claim.text.split()), 1)
  runs = []
  for field in fields_of(text):
    begin = field.content.start
    words = [(begin + one.start(), begin + one.end()) for one in _WORD.finditer(field.content.text)]
    for i in range(len(words) - n + 1):
      start, end = words[i][0], words[i + n - 1][1]
      if end <= claim.span[0] or start >= claim.span[1]:
        runs.append((start, end))
  if not runs:
    return None
  return tidy(replaced(text, {runs[random.integers(len(runs))]: ""}))
