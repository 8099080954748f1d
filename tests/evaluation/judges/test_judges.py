"""Judges of known answers: what they choose, what ties are worth, and the gate that each must pass."""

import numpy as np
import pytest
from support.judges import Deaf, Overlap
from support.speaking_pair import SpeakingNLA

from nla_jax.errors import NLAError
from nla_jax.evaluation.judges import planted, probes, reconstructor
from nla_jax.evaluation.judges.embeddings import Embeddings, whitening
from nla_jax.evaluation.judges.judge import Question, hit
from nla_jax.evaluation.judges.rules import Rules, load_rules

WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]


def test_a_choice_is_the_one_best_option_and_a_tie_is_none():
  assert Overlap().choose("a cedar by the fjord", ("delta", "fjord", "ember")) == 1
  assert Overlap().choose("nothing", ("delta", "fjord")) is None
  assert Overlap().label("an ember", ("delta", "ember")) == "ember"


def test_a_tie_is_worth_a_share_and_no_answer_is_wrong():
  assert hit(np.array([1.0, 2.0]), 1) == 1 and hit(np.array([1.0, 2.0]), 0) == 0
  assert hit(np.array([0.0, 0.0, -1.0, 0.0]), 3) == pytest.approx(1 / 3)
  assert hit(np.array([0.0, 0.0, -1.0]), 2) == 0
  assert hit(np.array([1.0, np.nan]), 0) == 0


def test_a_grade_is_yes_no_or_unclear():
  class Yes(Overlap):
    def scores(self, questions, frame=None):
      assert "{x}" in frame.before.format(text=questions[0].text)
      return [np.array([1.0, 0.0])]

  assert Yes().grade("Does it say {x}?", {"text": "so"}).verdict == "yes"
  assert Overlap().grade("Does it?", {"text": "so"}).verdict == "unclear"


# Rules


def test_rules_count_patterns_and_know_nothing_else():
  rules = Rules({"past": [r"\bwas\b", r"ago"], "present": [r"\bis\b"]})
  question = Question("It WAS long ago, and is", ("past", "present", "future"))
  assert rules.scores([question])[0].tolist() == [2, 1, 0]
  assert rules.choose(None, ("past", "present")) is None
  with pytest.raises(NLAError, match="no regular expression"):
    Rules({"a": ["("]})


@pytest.mark.parametrize(
  "name, text, said",
  [
    ("mark", "the black square stands before the right answer", "right"),
    ("mark", "a wrong option is marked with a square", "wrong"),
    ("mark", "the square of the town", None),
    ("tense", "yesterday it was walked", "past"),
    ("gender", "she spoke of her sister", "woman"),
  ],
)
def test_the_rules_that_are_kept_say_what_they_should(name, text, said):
  rules = load_rules(name)
  assert rules.label(text, rules.classes) == said


def test_rules_of_another_name_are_refused():
  with pytest.raises(NLAError, match=r"no rules 'x'; expected one of tense"):
    load_rules("x")


# Embeddings


def of_letters(texts):
  return np.array([[text.count(c) for c in "abcdefgh"] for text in texts], float)


def test_an_embedder_chooses_the_nearest_option_and_nothing_without_a_text():
  judge = Embeddings("letters", of_letters)
  assert judge.choose("aab", ("bbb", "aaa")) == 1
  assert judge.choose("", ("bbb", "aaa")) is None


def test_whitening_takes_out_what_all_texts_share():
  generator = np.random.default_rng(0)
  vectors = generator.normal(size=(4000, 5)) @ np.diag([30.0, 1, 1, 1, 1]) + 100
  mean, matrix = whitening(vectors)
  white = (vectors - mean) @ matrix
  assert abs(white.mean(axis=0)).max() < 1e-9
  # Of 900 to 1 nothing is left; the shrinkage keeps small directions a little smaller.
  np.testing.assert_allclose(np.diag(np.cov(white.T)), [1] + [1 / 1.1] * 4, atol=0.05)


def test_an_embedder_with_a_reference_hears_what_a_common_letter_drowns():
  texts = ["h" * n + 2 * c for n in (10, 90) for c in "abcdefg"]
  deaf, hearing = Embeddings("", of_letters), Embeddings("", of_letters, texts)
  options = ("h" * 60 + "bb", "h" * 10 + "cc")
  assert deaf.choose("h" * 60 + "cc", options) == 0
  assert hearing.choose("h" * 60 + "cc", options) == 1


# Judges that are trained


def test_folds_are_whole_groups_of_like_size():
  groups = np.repeat(np.arange(17), np.arange(17) % 5 + 1)
  fold = probes.fold_of_groups(groups, 0)
  assert all(len(set(fold[groups == one])) == 1 for one in range(17))
  assert np.ptp(np.bincount(fold)) <= 2
  assert (probes.fold_of_groups(groups, 1) != fold).any()


def test_logistic_regression_is_at_the_minimum_of_its_objective():
  generator = np.random.default_rng(1)
  x, labels = generator.normal(size=(60, 4)), generator.integers(3, size=60)
  weights, bias = probes.logistic(x, labels, 3, 0.5)
  logits = x @ weights + bias
  shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  gap = shares - np.eye(3)[labels]
  np.testing.assert_allclose(x.T @ gap / 60 + weights / (0.5 * 60), 0, atol=1e-4)
  np.testing.assert_allclose(gap.mean(axis=0), 0, atol=1e-4)


def test_a_probe_finds_a_direction_and_none_where_there_is_none():
  generator = np.random.default_rng(2)
  labels, groups = np.arange(120) % 2, np.arange(120)
  noise = generator.normal(size=(120, 20))
  signal = noise + 3 * labels[:, None] * np.eye(20)[3]
  right = np.mean(probes.linear_probe(signal, labels, groups, 2).argmax(axis=1) == labels)
  chance = np.mean(probes.linear_probe(noise, labels, groups, 2).argmax(axis=1) == labels)
  assert right > 0.75 and chance < 0.65


def test_a_probe_knows_nothing_of_its_own_documents():
  """Every document has a word and a direction of its own: learned by heart, they would give the label away."""
  groups = np.repeat(np.arange(20), 4)
  labels = np.random.default_rng(3).permutation(np.arange(20) % 2)[groups]
  texts = [f"document {WORDS[g % 10]}{g}" for g in groups]
  vectors = np.eye(20)[groups]
  for scores in (
    probes.text_probe(texts, labels, groups, 2),
    probes.linear_probe(vectors, labels, groups, 2),
  ):
    assert np.mean(scores.argmax(axis=1) == labels) < 0.75


def test_one_document_teaches_nothing():
  scores = probes.text_probe(["a", "b"], np.array([0, 1]), np.zeros(2), 2)
  assert not scores.any()


def test_prototypes_read_what_the_ar_gives_by_class_and_not_by_document():
  generator = np.random.default_rng(4)
  labels, groups = np.arange(60) % 3, np.arange(60)
  activations = np.eye(12)[labels] * 4 + generator.normal(size=(60, 12)) + 5
  # What is rebuilt lies elsewhere and is shorter, but points from its own middle to the same class.
  rebuilt = 0.1 * (np.eye(12)[labels] + 0.1 * generator.normal(size=(60, 12))) - 1
  found = reconstructor.prototypes(rebuilt, activations, labels, groups, 3).argmax(axis=1)
  assert np.mean(found == labels) > 0.9
  other = reconstructor.prototypes(rebuilt[::-1], activations, labels, groups, 3).argmax(axis=1)
  assert np.mean(other == labels) < 0.5


def test_the_ar_chooses_the_option_that_it_points_to():
  judge = reconstructor.Reconstructor(SpeakingNLA(), 8)
  options = [tuple(np.roll(WORDS, i)[:4]) for i in range(10)]
  questions = [Question(several[i % 4], several) for i, several in enumerate(options)]
  found = [one.argmax() for one in judge.scores(questions)]
  assert np.mean(np.array(found) == np.arange(10) % 4) > 0.8


# The gate


CARRIERS = [f"some note {i}" for i in range(40)]
OPTIONS = [tuple(np.roll(WORDS, i)[:5]) for i in range(40)]


def test_a_judge_that_reads_finds_the_signal_and_one_that_does_not_fails():
  good = planted.planted_choices(Overlap(), CARRIERS, OPTIONS, 0)
  assert good.passed and good.found == 1 and good.without == pytest.approx(0.2)
  assert good.gate("overlap").passed and "20 with a decisive word" in good.gate("overlap").detail
  assert not planted.planted_choices(Deaf(), CARRIERS, OPTIONS, 0).passed


def test_a_judge_that_knows_the_answer_without_the_signal_fails():
  assert not planted.Planted(found=1.0, without=0.9, chance=0.2, n=20).passed


def test_trained_judges_go_through_the_gate():
  def text(texts, labels, groups):
    return probes.text_probe(texts, labels, groups, 2)

  words = ("amber", "basin")
  assert planted.planted_labels(text, CARRIERS, words, 0).passed

  def constant(texts, labels, groups):
    return np.tile([1.0, 0.0], (len(texts), 1))

  assert not planted.planted_labels(constant, CARRIERS, words, 0).passed

  def leaking(texts, labels, groups):
    return np.eye(2)[labels]

  assert not planted.planted_labels(leaking, CARRIERS, words, 0).passed


def test_a_probe_of_vectors_goes_through_the_gate():
  vectors = np.random.default_rng(6).normal(size=(80, 16))

  def probe(vectors, labels, groups):
    return probes.linear_probe(vectors, labels, groups, 2)

  assert planted.planted_vectors(probe, vectors, 2, 0).passed
  deaf = planted.planted_vectors(lambda v, y, g: np.zeros((80, 2)), vectors, 2, 0)
  assert not deaf.passed and deaf.found == 0.5
