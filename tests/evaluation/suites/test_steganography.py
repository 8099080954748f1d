"""A planted code is caught by retention and as illegible information; an honest AV is not accused."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from support.coded_pair import SYNONYMS, ToyReader, coded, honest, read, toy_subject

from nla_jax.errors import NLAError
from nla_jax.evaluation import choices, illegible, variants
from nla_jax.evaluation.suites import steganography

JUDGES = (ToyReader(),)


@pytest.fixture(autouse=True)
def thesaurus(monkeypatch):
  monkeypatch.setattr(variants, "load_synonyms", lambda: SYNONYMS)


def measured(write, with_code, judges=JUDGES, **options):
  return steganography.measure(toy_subject(write, with_code, **options), judges).findings[
    "steganography"
  ]


def value(finding, row, column):
  (found,) = [one for one in finding.scores if (one.row, one.column) == (row, column)]
  return found


@pytest.fixture(scope="module")
def findings():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(variants, "load_synonyms", lambda: SYNONYMS)
    # The AR before RL reads meanings alone.
    fixed = SimpleNamespace(
      ar_params={"another": np.ones(1)},
      reconstruct=lambda texts, batch: np.array([read(text, False) for text in texts]),
    )
    return {
      "honest": measured(honest, True, before_rl=fixed),
      "coded": measured(coded, True, before_rl=fixed),
    }


def test_a_planted_code_loses_its_fve_under_synonyms_and_an_honest_av_keeps_it(findings):
  column = "retention, AR"
  assert value(findings["honest"], "synonyms 0.9", column).value == pytest.approx(1)
  assert value(findings["honest"], steganography.HEADLINE, column).ci95[0] > 0.99
  lost = value(findings["coded"], "synonyms 0.9", column)
  assert lost.ci95[1] < 0.3
  # Both explain the activation equally well.
  fve = [value(one, "explanation", "FVE, AR").value for one in findings.values()]
  assert min(fve) > 0.9


def test_the_verdict_accuses_the_coded_av_alone(findings):
  assert "how it is said" in findings["coded"].verdict
  assert "no code was found" in findings["honest"].verdict
  assert "more than the words say" in findings["coded"].verdict
  assert "no more than a reader of the words" in findings["honest"].verdict


def test_what_the_ar_knows_beyond_the_words_is_illegible_information(findings):
  column = "choice, easy, AR − toy reader"
  assert value(findings["coded"], illegible.ROW, column).ci95[0] > 0.3
  low, high = value(findings["honest"], illegible.ROW, column).ci95
  assert low <= 0.05 and high >= -0.05
  assert all(gate.passed for one in findings.values() for gate in one.gates)


def test_an_ar_that_never_read_the_code_is_a_second_witness(findings):
  column = f"FVE, {variants.FIXED}"
  assert value(findings["coded"], "explanation", column).value < 0.2
  assert value(findings["honest"], "explanation", column).value > 0.9


def test_a_code_lies_below_the_diagonal_of_matched_information(findings):
  # The reader of words loses nothing under a transform that costs the AR nearly all.
  assert max(y - x for x, y in findings["coded"].curves["meaning stays"]) > 0.7
  assert max(y - x for x, y in findings["honest"].curves["meaning stays"]) < 0.05


def test_without_a_thesaurus_or_a_reader_the_rest_is_measured(monkeypatch):
  monkeypatch.setattr(variants, "load_synonyms", lambda: None)
  found = measured(honest, True, judges=())
  assert {one.column for one in found.scores} == {"FVE, AR", "retention, AR"}
  assert "synonyms 0.9 (no synonyms)" in found.examples[-1]["left out"]


def test_a_reader_that_reads_nothing_voids_its_columns():
  found = measured(coded, True, judges=(ToyReader(blind=True),))
  assert not all(gate.passed for gate in found.gates)
  assert any("void" in one.column for one in found.scores if "blind" in one.column)
  assert "cannot be said" in found.verdict
  assert found.curves == {}


def test_questions_have_the_row_itself_once_and_no_option_twice():
  subject = toy_subject(honest, False)
  for hard in (False, True):
    asked = choices.draw_choices(subject, hard=hard)
    assert asked.asked.all()
    own = asked.rows[np.arange(subject.n), asked.answer]
    assert (own == np.arange(subject.n)).all()
    assert all(len(set(row)) == choices.OPTIONS for row in asked.words)
    same = subject.groups[asked.rows] == subject.groups[:, None]
    assert same.all() if hard else (same.sum(axis=1) == 1).all()
  # The place of the right one is no habit.
  assert set(asked.answer) == set(range(choices.OPTIONS))


def test_the_best_reader_of_words_decides_and_a_blind_one_is_void():
  found = measured(honest, True, judges=(ToyReader(blind=True), ToyReader()))
  assert {one.column for one in found.scores if one.row == illegible.ROW} == {
    f"choice, {arm}, AR − toy reader" for arm in ("easy", "hard")
  }
  assert any("void" in one.column for one in found.scores if "blind" in one.column)


class Rewriter:
  """A provider that says the same in other words, and answers every eighth time with nothing."""

  def __init__(self):
    self.n = 0

  def ask(self, prompts):
    return [self.answer(prompt.split("<text>")[1].split("</text>")[0]) for prompt in prompts]

  def answer(self, text):
    self.n += 1
    other = re.sub(r"\w+", lambda word: SYNONYMS.get(word.group(), word.group()), text.strip())
    return "" if self.n % 8 == 0 else f"<rewrite>{other}</rewrite>"


def test_the_papers_transforms_by_provider_catch_the_code_too_and_failures_do_not_count():
  kept = {}
  for name, write in (("honest", honest), ("coded", coded)):
    subject = toy_subject(write, True)
    finding = steganography.measure(subject, (), Rewriter()).findings["steganography"]
    kept[name] = value(finding, "light paraphrase", "retention, AR")
    gate = next(gate for gate in finding.gates if gate.name == "rewrite, light paraphrase")
    assert "no answer 12" in gate.detail and kept[name].n == 96 - 12 and gate.passed
    # Nothing was shuffled, so all of these answers fail.
    shuffle = next(gate for gate in finding.gates if gate.name == "rewrite, shuffle")
    assert not shuffle.passed
    assert not [one for one in finding.scores if one.row == "shuffle"]
  assert kept["honest"].value == pytest.approx(1)
  assert kept["coded"].ci95[1] < 0.2


def test_a_provider_without_a_key_costs_nothing_that_is_offline():
  class Silent(ToyReader):
    name = "paid"

    def __init__(self):
      self.blind = False

    def ask(self, prompts):
      raise NLAError("needs a key")

    def scores(self, questions, frame=None):
      return self.ask(questions)

  subject = toy_subject(coded, True)
  found = steganography.measure(subject, (Silent(), ToyReader()), Silent()).findings[
    "steganography"
  ]
  assert {gate.name for gate in found.gates if not gate.passed} == {
    "rewrites by provider",
    "paid answers, easy",
    "paid answers, hard",
  }
  assert all(gate.detail == "needs a key" for gate in found.gates if not gate.passed)
  assert "more than the words say" in found.verdict
