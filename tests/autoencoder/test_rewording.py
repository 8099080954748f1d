"""Words change places or are replaced; labels, punctuation and lines stay."""

import re

from nla_jax.autoencoder.rewording import shuffle_words, substitute_words

TEXT = 'Next: the, of, world\n\nAbout: Economy, theory\n\nEnds: "growth of the United States"'


def words(line):
  return re.findall(r"\w+", line)


def test_a_line_keeps_its_words_its_label_and_its_punctuation():
  (shuffled,) = shuffle_words([TEXT], 0)
  assert shuffled != TEXT and len(shuffled.split("\n")) == len(TEXT.split("\n"))
  for before, after in zip(TEXT.split("\n"), shuffled.split("\n")):
    assert sorted(words(before)) == sorted(words(after))
    assert words(before)[:1] == words(after)[:1]
    assert re.sub(r"\w+", "w", before) == re.sub(r"\w+", "w", after)


def test_two_different_words_always_change_places_and_one_word_never_does():
  texts = ["Next: a, b"] * 40
  assert set(shuffle_words(texts, 3)) == {"Next: b, a"}
  assert shuffle_words(["Next: a, a", "word", "", None], 0) == ["Next: a, a", "word", "", None]


def test_the_order_depends_on_the_seed_and_the_place_alone():
  text = "one two three four five six seven eight"
  first = shuffle_words([text, text], 0)
  assert first == shuffle_words([text, text], 0)
  assert first[0] != first[1]
  assert shuffle_words([text], 0) == first[:1] != shuffle_words([text], 1)
  assert shuffle_words([None, text], 0)[1] == first[1]


def test_words_with_a_synonym_are_replaced_in_their_capitals():
  table = {"economy": "thrift", "growth": "increase", "states": "lands", "about": "around"}
  found = substitute_words([TEXT, None, "GROWTH the"], {**table, "the": "a"})
  assert found.texts[0] == (
    'Next: the, of, world\n\nAbout: Thrift, theory\n\nEnds: "increase of the United Lands"'
  )
  assert found.texts[1:] == [None, "INCREASE the"]
  assert found.share == 4 / 12


def test_without_words_nothing_is_replaced():
  assert substitute_words([None, ""], {}).share == 0
