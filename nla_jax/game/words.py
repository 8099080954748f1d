"""Which words one body of text uses more than another: log-odds with an informative Dirichlet prior.

Source: Monroe, Colaresi and Quinn, Fightin' Words, Political Analysis 16, 2008, equations 15, 16, 20 to 22.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.tracing.ranking import words

PRIOR = 0.1  # of all words, those that the prior counts for: a word that one side lacks has to be seen about 18 times
_SHORTEST = 3  # letters of a word that counts: shorter ones are grammar and pieces
_GRAMMAR_WORDS = (
  "about after all also and any are because been before but can did does for from had has have her him his how into "
  "its like many more most not now only other our out over she some such than that the their them then there these "
  "they this those was were what when where which while who will with would you your"
)
_GRAMMAR = frozenset(words(_GRAMMAR_WORDS))
_ALIKE = 0.5  # of the texts with either of two words, those with both, from which the words are one concept


class Word(NamedTuple):
  """A word that ours use more.

  Attributes:
    word: in lower case; or two that stand side by side.
    z: log-odds difference in standard deviations.
    texts: how many of our texts have it.
  """

  word: str
  z: float
  texts: int


def log_odds(ours: Sequence[str], theirs: Sequence[str]) -> list[Word]:
  """Every word of our texts with its z, the most ours first; of equal z by the alphabet.

  The prior is what both use together, so that a rare word has to be seen often before it says something.
  """
  a, b = _counts(ours), _counts(theirs)
  both = a + b
  n_a, n_b, whole = a.total(), b.total(), PRIOR * both.total()
  in_texts = Counter(word for text in ours for word in set(units(text)))

  found = []
  for word in a:
    prior = PRIOR * both[word]
    x, y = a[word] + prior, b[word] + prior
    # Where a side has no other word, its odds have no end.
    rest_a, rest_b = max(n_a + whole - x, 1e-9), max(n_b + whole - y, 1e-9)
    odds = np.log(x / rest_a) - np.log(y / rest_b)
    found.append(Word(word, float(odds / np.sqrt(1 / x + 1 / y)), in_texts[word]))
  return sorted(found, key=lambda one: (-one.z, one.word))


def _counts(texts: Iterable[str]) -> Counter:
  return Counter(unit for text in texts for unit in units(text))


def units(text: str) -> list[str]:
  """What is counted of a text: its words but those of grammar, and each two of them that stand side by side."""
  found, before = [], ""
  for word in words(text):
    counts = len(word) >= _SHORTEST and not word.isdigit() and word not in _GRAMMAR
    if counts:
      found.append(word)
      # A name of two words says more than either: of "reward models" both are common.
      found += [f"{before} {word}"] if before else []
    before = word if counts else ""
  return found


def clustered(found: Sequence[Word], texts: Sequence[str]) -> list[list[str]]:
  """The words in groups that stand in the same texts, the first word's group first."""
  of_texts = [set(units(text)) for text in texts]
  where = {one.word: {i for i, some in enumerate(of_texts) if one.word in some} for one in found}

  groups: list[list[str]] = []
  for one in found:
    # A group is known by its first word, which is the one that tells most.
    home = next((group for group in groups if _together(where[group[0]], where[one.word])), None)
    if home is None:
      groups.append([one.word])
    else:
      home.append(one.word)
  return groups


def _together(one: set[int], other: set[int]) -> bool:
  return len(one & other) >= _ALIKE * max(len(one | other), 1)
