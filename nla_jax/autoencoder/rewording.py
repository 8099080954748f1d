"""Explanations said otherwise: in another order of words, or with other words for the same.

What is left of FVE then is carried by what the words mean; a code between the AV and the AR that lives in the order or
in the choice of words is lost.

Both changes stay within a line and leave its label (the `Next:` of `Next: a, b`) and its punctuation in place. A line
is what an explanation says of one kind (guesses, topics, the end of the text), so a word that changed lines would say
something else, where one that changes places says the same.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_LABEL = re.compile(r"\s*\w+:(?=\s)")  # what a line is about
_WORD = re.compile(r"\w[\w'’-]*")

# Shorter words are mostly grammar, and a thesaurus knows them as something else ("in": inch).
_SHORTEST = 4


class Substituted(NamedTuple):
  """Texts with other words.

  Attributes:
    texts: [n]; None where there was none.
    share: replaced words of all words.
  """

  texts: list[str | None]
  share: float


def shuffle_words(texts: Sequence[str | None], seed: int) -> list[str | None]:
  """Texts with the words of each line in another order, wherever it has two different ones.

  Args:
    texts: explanations; None stays None.
    seed: of the orders; that of a text depends on its place among the texts, and on no other text.
  """
  shuffled = []
  for i, text in enumerate(texts):
    generator = np.random.default_rng((seed, i))
    shuffled.append(
      text and _rewrite(text, lambda words, draw=generator: _other_order(words, draw))
    )
  return shuffled


def substitute_words(
  texts: Sequence[str | None], synonyms: Mapping[str, str], *, rate: float = 1.0, seed: int = 0
) -> Substituted:
  """Texts with words of at least four letters replaced that have a synonym; capitals stay.

  Args:
    texts: explanations; None stays None.
    synonyms: {word: another}, in small letters.
    rate: share of these words that is replaced; every one by default.
    seed: of their choice; that of a text depends on its place among the texts, and on no other text.
  """
  counts = [0, 0]  # words, replaced words

  def others(words: list[str], generator: np.random.Generator) -> list[str]:
    drawn = generator.random(len(words)) < rate
    new = [_synonym(word, synonyms) if now else word for word, now in zip(words, drawn)]
    counts[0] += len(words)
    counts[1] += sum(one != word for one, word in zip(new, words))
    return new

  written = []
  for i, text in enumerate(texts):
    generator = np.random.default_rng((seed, i))
    written.append(text and _rewrite(text, lambda words, draw=generator: others(words, draw)))
  return Substituted(written, counts[1] / max(counts[0], 1))


def _rewrite(text: str, change: Callable[[list[str]], list[str]]) -> str:
  """The text with the words of each line changed; as many come out as went in."""
  lines = []
  for line in text.split("\n"):
    label = _LABEL.match(line)
    start = label.end() if label else 0
    words = iter(change(_WORD.findall(line, start)))
    lines.append(line[:start] + _WORD.sub(lambda _, words=words: next(words), line[start:]))
  return "\n".join(lines)


def _other_order(words: list[str], generator: np.random.Generator) -> list[str]:
  if len(set(words)) < 2:
    return words

  # Two words would stay as they are every second time, and the text would count as shuffled.
  order = words
  while order == words:
    order = [words[i] for i in generator.permutation(len(words))]
  return order


def _synonym(word: str, synonyms: Mapping[str, str]) -> str:
  """The synonym of a word, in the word's capitals; the word itself where there is none."""
  found = synonyms.get(word.lower()) if len(word) >= _SHORTEST else None
  if found is None:
    return word
  if word.isupper():
    return found.upper()
  return found.capitalize() if word[0].isupper() else found
