"""Bad writing is counted as such, and beside the teacher's at equal length."""

import numpy as np
import pytest
from support.coded_pair import honest, toy_subject

from nla_jax.evaluation import prose
from nla_jax.evaluation.suites import writing

READOUT = 'Next: the, of\n\nAbout: Economy\n\nEnds: "growth of the States"'


def cell(finding, row, column):
  (found,) = [one for one in finding.scores if (one.row, one.column) == (row, column)]
  return found


def measured(write, monkeypatch, **changes):
  """The finding, with a base model that finds every word of more than seven letters unlikely."""

  def logprobs(self, questions, frame):
    return [
      np.array([-np.mean([len(w) > 7 for w in o.split()]) for o in one.options])
      for one in questions
    ]

  monkeypatch.setattr(writing.FrozenTarget, "logprobs", logprobs)
  subject = toy_subject(write, False)
  subject.nla.whole_target = None
  for name, value in changes.items():
    setattr(subject.nla, name, value)
  return writing.run(subject).findings["writing"]


def test_repeats_are_counted_within_a_text():
  assert prose.repeated("a b c d e f") == 0
  assert prose.repeated("a b c a b c") == pytest.approx(1 / 4)
  assert prose.distinct("a b a b a") == pytest.approx(2 / 4)
  assert (prose.repeated(""), prose.distinct("a")) == (0, 1)


def test_phrases_of_other_documents_are_told_from_a_texts_own():
  texts = ["it is a tale of tea", "it is a tale of salt", "quite another one here", None]
  found = prose.templates(texts, np.array(["a", "b", "c", "d"]))
  assert found.tolist() == [0.75, 0.75, 0, 0]
  # Within one document a phrase is its own.
  assert prose.templates(texts, np.array(["a", "a", "c", "d"])).tolist() == [0, 0, 0, 0]


def test_chains_of_or_are_guesses():
  assert prose.or_chains("a letter or a poem or a play. It is short.") == pytest.approx(8 / 11)
  assert prose.or_chains("a letter or a poem. A play or a song.") == 0


def test_short_words_are_easier_than_long_ones():
  assert prose.reading_ease("The cat sat. The dog ran.") == 100
  assert prose.reading_ease("Institutional representatives deliberated extraordinarily.") < 10


def test_a_text_says_its_items_one_by_one():
  assert prose.parts(READOUT) == [
    "Next: the",
    "Next: of",
    "About: Economy",
    'Ends: "growth of the States"',
  ]
  assert prose.parts("It is. It was.") == ["It is.", "It was."]


def test_babble_is_worse_than_the_teacher_and_honest_words_are_not(monkeypatch):
  good = measured(honest, monkeypatch)
  assert "nothing that is counted is worse" in good.verdict
  bad = measured(lambda cluster, random: "About " + "sluggish letters " * 6, monkeypatch)
  assert "repeated" not in good.verdict and "NLL under the base" in bad.verdict
  assert cell(bad, "explanation", "repeated 3-grams").value > 0.5
  # At equal length it has three words or four, and cannot repeat itself yet.
  assert cell(bad, "explanation", "repeated 3-grams, equal length").value == 0
  tokens = [cell(bad, row, "tokens").value for row in ("explanation", "teacher")]
  assert tokens[0] == 13 and tokens[1] == 4
  assert cell(bad, "explanation", "3-grams of other documents").value == 1


def test_silent_explanations_are_counted_and_not_averaged(monkeypatch):
  write = lambda cluster, random: None if cluster < 4 else "About: large, quick, warm"
  found = measured(write, monkeypatch)
  rate = cell(found, "explanation", "parse rate")
  assert rate.n == 96 and 0.3 < rate.value < 0.7
  assert cell(found, "explanation", "tokens").n == round(rate.value * 96)
  assert not found.gates[0].passed


def test_items_that_say_the_same_are_duplicates(monkeypatch):
  directions = dict(zip(("large", "huge", "small"), np.eye(3)[[0, 0, 1]]))

  def reconstruct(texts, batch):
    return np.array([directions.get((text or "").split()[-1], np.eye(3)[2]) for text in texts])

  same = measured(
    lambda c, r: "About: large, huge" if c < 4 else "Ends: small, slow",
    monkeypatch,
    reconstruct=reconstruct,
  )
  apart = measured(lambda c, r: "About: large, small", monkeypatch, reconstruct=reconstruct)
  column = "duplicate items"
  assert cell(same, "explanation", column).value > cell(apart, "explanation", column).value + 0.5


def test_likelihoods_come_back_in_the_order_of_the_texts():
  calls = []

  def logprobs(questions, frame):
    calls.append(len(questions[0].options))
    return [np.array([-float(len(o)) for o in one.options]) for one in questions]

  texts = ["a" * n if n else None for n in (9, 2, 0, 5, 1, 7, 3, 8, 4, 6, 12)]
  assert writing.nats(logprobs, texts).tolist() == [9, 2, 0, 5, 1, 7, 3, 8, 4, 6, 12]
  assert set(calls) == {8}
