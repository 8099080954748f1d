"""What explanations keep when their words are moved or replaced, under each AR."""

import pytest
from support.known_pair import KnownNLA, write_store

from nla_jax.evaluation import harness, variants

MORE = "1234 5678"  # words that name no activation


@pytest.fixture
def store(tmp_path):
  return write_store(tmp_path / "store")


@pytest.fixture
def thesaurus(monkeypatch):
  return lambda table: monkeypatch.setattr(variants, "load_synonyms", lambda: table)


def measured(store, nla, before):
  return harness.evaluate(nla, store, before_rl=before, bootstrap_samples=50).metrics


def test_an_ar_that_reads_by_place_loses_what_one_that_reads_words_keeps(store, thesaurus):
  thesaurus(None)
  found = measured(store, KnownNLA(more="99"), KnownNLA(more="99", ar="any"))
  assert found["retention"]["retention_shuffle_fixed"]["value"] == pytest.approx(1)
  constant = found["controls"]["empty_text"]["value"]
  assert found["fve"]["shuffled_words"]["value"] == pytest.approx(constant)
  trip = found["fve"]["round_trip"]["value"]
  assert found["retention"]["retention_shuffle"]["value"] == pytest.approx(constant / trip)

  # The two readers the other way round: it is the AR that matters, not which pair's text it is.
  swapped = measured(store, KnownNLA(more="99", ar="any"), KnownNLA(more="99"))["retention"]
  assert swapped["retention_shuffle"]["value"] == pytest.approx(1)
  assert swapped["retention_shuffle_fixed"]["value"] < 0.5


def test_synonyms_of_other_words_cost_nothing_and_those_of_the_name_all(store, thesaurus):
  thesaurus({"1234": "4321"})
  found = measured(store, KnownNLA(more=MORE), KnownNLA(more=MORE, ar="any"))
  assert found["retention"]["retention_synonyms"]["value"] == pytest.approx(1)
  assert found["synonyms_share"] == pytest.approx(1 / 3)
  assert "synonyms_fixed" in found["fve"]


def test_without_a_thesaurus_synonyms_are_left_out_with_a_line(store, thesaurus, capsys):
  thesaurus(None)
  found = measured(store, KnownNLA(), None)
  assert found["retention"].keys() == {"retention_shuffle"}
  assert "synonyms" not in found["fve"] and "synonyms_share" not in found
  assert "no thesaurus is installed" in capsys.readouterr().err
