"""Edits of an explanation: words replaced by others, and the edit of an unrelated word that is a control."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nla_jax.autoencoder.text import well_formed
from nla_jax.errors import NLAError

_EXAMPLE = '{"Paris": "Rome"}'
_SHORTEST = 4  # letters; shorter words are mostly grammar
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_LABEL = re.compile(r"^\s*\w+:(?=\s)", re.MULTILINE)  # what a line is about
# What stands in for an unrelated word: plain things that a prompt is seldom about.
_THINGS = ("basket", "copper", "ladder", "velvet", "pepper", "harbor", "pillow", "gravel", "anchor")


def check_edit(edit: Any) -> None:
  """Raises NLAError where an edit is neither {word: another} nor a whole explanation."""
  if isinstance(edit, str):
    if not well_formed(edit, "the new explanation").strip():
      raise NLAError(f"the new explanation is empty: give its words, or an edit such as {_EXAMPLE}")
    return
  if not isinstance(edit, Mapping) or not edit:
    raise NLAError(f"edit={edit!r:.60}: expected words such as {_EXAMPLE}, or a new explanation")
  for old, new in edit.items():
    if not isinstance(old, str) or not isinstance(new, str) or not old.strip():
      raise NLAError(f"edit: {old!r:.40} -> {new!r:.40}: expected words such as {_EXAMPLE}")
    well_formed(old, "a word of the edit")
    well_formed(new, "a word of the edit")


def edited(explanation: str, edit: Mapping[str, str] | str) -> str:
  """The explanation with every occurrence of the words replaced, all at once; or the new one that is given whole.

  Only whole words are replaced where the script has capitals, and so spaces between words.

  Args:
    explanation: that was read.
    edit: {word: another}, or a new explanation.

  Raises:
    NLAError: a word is not in the explanation, or nothing changes.
  """
  if isinstance(edit, str):
    changed = edit
  else:
    missing = [old for old in edit if not re.search(_pattern(old), explanation)]
    if missing:
      raise NLAError(
        f"the explanation has no {', '.join(map(repr, missing))}: {' '.join(explanation.split())[:200]!r}; edit a word "
        "that it has, or give a whole explanation"
      )
    # The longest first, so that "New York" is not taken for "New".
    words = sorted(edit, key=len, reverse=True)
    changed = re.sub("|".join(map(_pattern, words)), lambda match: edit[match.group()], explanation)
  if changed == explanation:
    raise NLAError("the edit changes nothing in the explanation: give another word")
  return changed


class Unrelated(NamedTuple):
  """The edit of a word that has nothing to do with the edit that is tested.

  Attributes:
    text: the explanation with it.
    old: the word that was replaced; empty where there was no other, and the new one was put at the end.
    new: what stands in its place.
  """

  text: str
  old: str
  new: str


def unrelated_edit(explanation: str, edit: Mapping[str, str] | str, seed: int) -> Unrelated:
  """An edit of another word than those of `edit`, drawn by the seed.

  Args:
    explanation: that was read.
    edit: the edit that it is a control of.
    seed: of the draw.
  """
  taken = _taken(explanation, edit)
  labels = [match.span() for match in _LABEL.finditer(explanation)]
  words = [
    match.group()
    for match in _WORD.finditer(explanation)
    if not any(start <= match.start() < end for start, end in labels)
  ]
  words = [word for word in dict.fromkeys(words) if word.lower() not in taken]
  words = [word for word in words if len(word) >= _SHORTEST] or words
  things = [thing for thing in _THINGS if thing not in explanation.lower()] or list(_THINGS)

  generator = np.random.default_rng(seed % 2**32)
  thing = things[generator.integers(len(things))]
  if not words:
    return Unrelated(f"{explanation} {thing}", "", thing)
  word = words[generator.integers(len(words))]
  thing = thing.capitalize() if word[0].isupper() else thing
  return Unrelated(edited(explanation, {word: thing}), word, thing)


def _taken(explanation: str, edit: Mapping[str, str] | str) -> set[str]:
  """Words, in small letters, that an edit is about."""
  if isinstance(edit, str):
    # What the new explanation leaves as it is may be edited; if it keeps nothing, every word may.
    before, after = (set(map(str.lower, _WORD.findall(text))) for text in (explanation, edit))
    return before - after if before & after else set()
  return {part.lower() for pair in edit.items() for words in pair for part in _WORD.findall(words)}


def _pattern(word: str) -> str:
  """A regular expression of a word, whole where its script writes spaces between words."""
  before = r"(?<!\w)" if _has_capitals(word[0]) else ""
  after = r"(?!\w)" if _has_capitals(word[-1]) else ""
  return f"{before}{re.escape(word)}{after}"


def _has_capitals(letter: str) -> bool:
  return letter.lower() != letter.upper() or letter.isdigit()
