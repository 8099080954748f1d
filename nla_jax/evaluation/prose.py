"""How a text is written, by counting: repeats, phrases of other texts, chains of "or", and readability."""

import re
from collections.abc import Sequence

import numpy as np

from nla_jax.evaluation.fields import fields_of, items_of, sentences_of

_WORD = re.compile(r"\w[\w'’-]*")
_CLAUSE = re.compile(r"[^.;!?\n]+")
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_VOWELS = re.compile(r"[aeiouy]+")
_END = re.compile(r"[.!?]+(?:\s|$)|\n+|$")


def words_of(text: str) -> list[str]:
  """The words of a text in small letters, without the labels of its lines."""
  return [w.lower() for field in fields_of(text) for w in _WORD.findall(field.content.text)]


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
  """Every n words in a row."""
  return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def repeated(text: str, n: int = 3) -> float:
  """Share of the n-grams that came before in the same text; 0 of a text of fewer words."""
  found = ngrams(words_of(text), n)
  return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(text: str, n: int = 2) -> float:
  """Different n-grams of all n-grams of a text; 1 of a text of fewer words."""
  found = ngrams(words_of(text), n)
  return len(set(found)) / len(found) if found else 1.0


def or_chains(text: str) -> float:
  """Share of the words that stand in clauses with "or" twice or more: a list of guesses in place of a statement."""
  total = chained = 0
  for clause in _CLAUSE.findall(text):
    n = len(_WORD.findall(clause))
    total += n
    chained += n if len(_OR.findall(clause)) > 1 else 0
  return chained / total if total else 0.0


def templates(texts: Sequence[str | None], groups: np.ndarray, n: int = 3) -> np.ndarray:
  """[texts] share of a text's n-grams that a text of another document group has too; 0 of one without n-grams."""
  grams = [set(ngrams(words_of(text or ""), n)) for text in texts]
  owners: dict[tuple[str, ...], set] = {}
  for several, group in zip(grams, groups):
    for one in several:
      owners.setdefault(one, set()).add(group)
  shared = [sum(len(owners[one]) > 1 for one in several) for several in grams]
  return np.array([a / max(len(b), 1) for a, b in zip(shared, grams)])


def reading_ease(text: str) -> float:
  """Flesch's reading ease, 0 hard to 100 easy, by groups of vowels for syllables; clipped to that range.

  Source: Flesch, A new readability yardstick, 1948.
  """
  words = words_of(text)
  if not words:
    return 0.0
  sentences = max(len([one for one in _END.split(text) if one.strip()]), 1)
  # A silent e at the end is no syllable.
  syllables = sum(max(len(_VOWELS.findall(w.removesuffix("e"))), 1) for w in words)
  ease = 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)
  return float(np.clip(ease, 0.0, 100.0))


def parts(text: str) -> list[str]:
  """What a text says, one thing each: items of lists with their label, and sentences."""
  found = []
  for field in fields_of(text):
    label = f"{field.label}: " if field.label else ""
    several = items_of(text, field) or sentences_of(text, field)
    found += [label + one.text for one in several if one.text.strip()]
  return found
