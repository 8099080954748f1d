"""What RL presses explanations towards: other words for the same, and true claims."""

import numpy as np
import pytest

from nla_jax.config import default_config
from nla_jax.errors import NLAError
from nla_jax.run import pressures
from nla_jax.training.settings import check_settings

TEXT = 'Next: the, a\nAbout: large rivers, towns\nEnds: "the old river bank"'


def settings(**changes):
  rl = default_config().rl
  rl.update(changes)
  return rl


def test_explanations_are_not_said_otherwise_unless_asked():
  assert pressures.rewording(settings()) is None


def test_another_order_keeps_every_word_and_label():
  reworded = pressures.rewording(settings(reword=0.5, reword_by="order"))
  (one, nothing), (again, _) = reworded([TEXT, None], 3), reworded([TEXT, None], 3)
  assert nothing is None and one == again and one != TEXT
  assert sorted(one.split()) != TEXT.split()
  for line, before in zip(one.split("\n"), TEXT.split("\n"), strict=True):
    assert line.split()[0] == before.split()[0]


def test_half_of_the_texts_are_reordered_and_half_get_synonyms(monkeypatch):
  monkeypatch.setattr(pressures.thesaurus, "load_synonyms", lambda: {"large": "big"})
  reworded = pressures.rewording(settings(reword=1.0))
  found = reworded(["About: large rivers"] * 200, 0)
  with_synonym, reordered = found.count("About: big rivers"), found.count("About: rivers large")
  assert with_synonym + reordered == 200 and 70 < reordered < 130


def test_synonyms_without_wordnet_are_one_line(monkeypatch):
  monkeypatch.setattr(pressures.thesaurus, "load_synonyms", lambda: None)
  with pytest.raises(NLAError, match=r"pip install .*reword_by=order"):
    pressures.rewording(settings(reword=0.5))


@pytest.mark.parametrize(
  "text, expected",
  [
    (TEXT, 2 / 3),  # "towns" is not there, and the quote does not end the context
    ('About: rivers\nEnds: "by the large rivers"', 0.0),
    ("Next: nothing", 0.0),  # no claim about the context
    (None, 0.0),
    ('About: palaces, kings\nEnds: "a queen"', 1.0),
  ],
)
def test_the_false_share_is_of_claims_about_the_context(text, expected):
  found = pressures.false_share(text, "Old banks stood by the large rivers")
  assert found == pytest.approx(expected)


@pytest.mark.parametrize(
  "name, value",
  [("reword", 1.5), ("reword", float("nan")), ("reword_by", "poetry"), ("false_claim_cost", -1.0)],
)
def test_pressures_that_cannot_work_are_refused(name, value):
  with pytest.raises(NLAError, match=f"config.rl.{name}="):
    check_settings(settings(**{name: value}))


def test_draws_depend_on_the_seed_alone():
  reworded = pressures.rewording(settings(reword=1.0, reword_by="order"))
  texts = ["About: one two three four five"] * 4
  assert reworded(texts, 1) == reworded(texts, 1) != reworded(texts, 2)
  assert len(np.unique(reworded(texts, 1))) > 1
