"""Words of an explanation are replaced whole and at once, and an unrelated edit is unrelated."""

import pytest

from nla_jax.errors import NLAError
from nla_jax.reading.edits import edited, unrelated_edit

TEXT = "Next: Paris, the\n\nAbout: France, Parisian, New York"


@pytest.mark.parametrize(
  ("edit", "expected"),
  [
    ({"Paris": "Rome"}, "Next: Rome, the\n\nAbout: France, Parisian, New York"),
    (
      {"Paris": "France", "France": "Paris"},
      "Next: France, the\n\nAbout: Paris, Parisian, New York",
    ),
    ({"New": "Old", "New York": "Oslo"}, "Next: Paris, the\n\nAbout: France, Parisian, Oslo"),
    ({"the": r"\1"}, "Next: Paris, \\1\n\nAbout: France, Parisian, New York"),
    ("Next: a", "Next: a"),
  ],
)
def test_words_are_replaced_whole_and_at_once(edit, expected):
  assert edited(TEXT, edit) == expected


def test_scripts_without_spaces_between_words():
  assert edited("法国的首都是巴黎。", {"巴黎": "罗马"}) == "法国的首都是罗马。"


def test_a_word_that_is_not_there_is_named():
  with pytest.raises(NLAError, match=r"no 'paris', 'Oslo': 'Next: Paris, the About"):
    edited(TEXT, {"paris": "Rome", "Paris": "Rome", "Oslo": "x"})


def test_an_unrelated_edit_changes_one_other_word():
  seen = set()
  for seed in range(-3, 30):
    found = unrelated_edit(TEXT, {"Paris": "Rome", "France": "Italy"}, seed)
    assert found == unrelated_edit(TEXT, {"Paris": "Rome", "France": "Italy"}, seed)
    assert found.text == edited(TEXT, {found.old: found.new}) and found.new.istitle()
    seen.add(found.old)
  assert seen == {"Parisian", "York"}


def test_an_unrelated_edit_of_a_whole_explanation_keeps_to_what_both_have():
  seen = {unrelated_edit(TEXT, "Next: Rome, the France Parisian", seed).old for seed in range(20)}
  assert seen == {"France", "Parisian"}


def test_an_explanation_of_one_word_gets_another():
  found = unrelated_edit("Paris", {"Paris": "Rome"}, 0)
  assert found.old == "" and found.text == f"Paris {found.new}"
