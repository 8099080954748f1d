"""Claims are read exactly from the readout format, from prose where they can be checked, and from a provider."""

import json

import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation.claims.extract import claims_by
from nla_jax.evaluation.claims.parse import claims_of, from_provider

READOUT = 'Next: the, ,, World\n\nAbout: Economy, theory\n\nEnds: "growth of "the" States"'
PROSE = "- The text, about the Hanse League, says “so it goes in 1999” at 12:30.\nIt is Paris."


def fields(text):
  return [(one.text, one.field, one.level) for one in claims_of(text)]


def test_each_item_and_the_quote_of_the_readout_format_is_a_claim():
  assert fields(READOUT) == [
    ("the", "Next", "detail"),
    (",", "Next", "detail"),
    ("World", "Next", "entity"),
    ("Economy", "About", "entity"),
    ("theory", "About", "theme"),
    ('growth of "the" States', "Ends", "detail"),
  ]
  found = claims_of(READOUT)
  assert [READOUT[slice(*one.span)] for one in found] == [one.text for one in found]
  assert [one.id for one in found] == list(range(6))
  assert claims_of(None) == claims_of("") == []


def test_what_the_teacher_writes_is_read_back_whole():
  from nla_jax.data.teachers.readout import _features

  guesses, words = ["the", ",", '"', "New"], ["Economy", "theory"]
  text = _features(guesses, words, 'said "no", and left, it')
  assert [one.text for one in claims_of(text)] == [*guesses, *words, 'said "no", and left, it']


def test_prose_gives_quotes_numbers_and_names():
  assert fields(PROSE) == [
    ("Hanse League", "name", "entity"),
    ("so it goes in 1999", "quote", "detail"),
    ("12:30", "number", "detail"),
    ("Paris", "name", "entity"),
  ]


def test_a_providers_claims_fill_the_same_schema():
  text = "A novel about a novel."
  rows = [
    {"text": "novel", "level": "theme", "verdict": True},
    {"text": "novel", "level": "theme", "verdict": False, "related": True},
  ]
  first, second = from_provider(text, rows)
  assert (first.span, second.span) == ((2, 7), (16, 21))
  assert (first.verdict, second.verdict, second.related) == (True, False, True)


def test_a_providers_invented_claim_is_refused_and_counted():
  for row, said in (
    ({"text": "a play", "level": "theme"}, "not in the explanation"),
    ({"text": "novel", "level": "topic"}, "theme, entity, detail"),
  ):
    with pytest.raises(NLAError, match=said):
      from_provider("A novel", [row])


def test_a_language_model_judges_the_claims_of_prose_and_its_failures_are_counted():
  row = {"text": "novel", "level": "theme", "verdict": False, "related": True}
  answers = [
    f"<answer>{json.dumps([row])}</answer>",
    '<answer>[{"text": "a play"}]</answer>',
    "No.",
    "[1]",
  ]
  asked = []

  class Recorded:
    def ask(self, prompts):
      asked.extend(prompts)
      return answers

  texts = ["A novel {text}", None, "A novel", "A novel", "A novel"]
  found, failed = claims_by(Recorded(), texts, ["It is a poem."] * 5)
  assert [len(one) for one in found] == [1, 0, 0, 0, 0] and failed == 3
  assert (found[0][0].verdict, found[0][0].related) == (False, True)
  assert len(asked) == 4 and "It is a poem." in asked[0] and "A novel {text}" in asked[0]
