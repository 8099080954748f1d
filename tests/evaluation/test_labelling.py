"""What a target holds and an AV says is found; what either lacks is not, and is said not to be."""

import numpy as np
import pytest
from support.judges import Overlap
from support.speaking_pair import WIDTH, SpeakingNLA, Tokenizer, write_store

from nla_jax.evaluation import labelling, rivals
from nla_jax.evaluation.items import labelled
from nla_jax.evaluation.judges import panel
from nla_jax.evaluation.judges.judge import Judge
from nla_jax.evaluation.subject import draw_subject

TASK = labelled.sentences("tense", 48, 0)


class CueReader(Judge):
  """Knows which cue is of which class, and the classes' names."""

  name = "cue reader"

  def scores(self, questions, frame=None):
    def known(text, option):
      cues = [one.cue for one in TASK.items if TASK.classes[one.label] == option]
      return float(option in text.split() or any(cue in text for cue in cues))

    return [np.array([known(q.text or "", o) for o in q.options]) for q in questions]


class Understanding(SpeakingNLA):
  """Its target holds the class of a sentence in one direction, as its AR does of the class's name."""

  def bag(self, text):
    directions = np.random.default_rng(99).normal(size=(2, WIDTH)).astype(np.float32)
    held = [
      label
      for label, name in enumerate(TASK.classes)
      if name in text.split() or any(one.cue in text and one.label == label for one in TASK.items)
    ]
    return super().bag(text) + 8 * sum(directions[one] for one in held)


@pytest.fixture
def measured(tmp_path, monkeypatch):
  monkeypatch.setattr(panel, "word_judges", lambda subject: [CueReader()])
  monkeypatch.setattr(rivals, "texts", lambda subject, v: {"logit_lens": ["?"] * len(v)})
  tokenizer = Tokenizer()
  store = write_store(tmp_path / "store", tokenizer)

  def measured(says, kind=Understanding, **options):
    nla = kind(says, tokenizer, store)
    subject = draw_subject(
      nla, store, texts=None, before_rl=None, bootstrap_samples=50, preset="quick"
    )
    read = labelling.read_task(subject, TASK)
    found = labelling.measure(subject, read, 20, **options)
    return found, labelling.finding("?", [found], subject)

  return measured


def class_of(words):
  text = " ".join(words)
  return next((TASK.classes[one.label] for one in TASK.items if one.text == text), "note")


def says_the_class(words, position):
  return f"it is {class_of(words)}"


def values(finding):
  return {(one.column.removeprefix("tense, "), one.row): one.value for one in finding.scores}


def test_what_is_held_and_said_is_found_by_every_judge(measured):
  found, finding = measured(says_the_class, rules="tense")
  value = values(finding)
  assert value["probe on h", "probe"] > 0.9
  for judge in ("cue reader", "rules", "trained on words", "AR"):
    assert value[judge, "explanation"] > 0.9, judge
    assert value[judge, "shuffled"] < 0.7, judge
  assert value["cue reader", "skyline"] == 1 and value["cue reader", "empty"] == 0.5
  assert finding.verdict.startswith("Of 1 tasks the activations hold 1; tense, cue reader 1.00")
  assert "not shown" not in finding.verdict
  assert found.gates[0].name == "in the activation, tense" and found.gates[0].passed
  planted = [gate for gate in found.gates if gate.name.startswith("planted")]
  assert len(planted) == 5 and all(gate.passed for gate in planted)


def test_what_the_activation_does_not_hold_is_not_asked_of_explanations(measured):
  """A bag of words knows no class of cues that it has not met."""

  class Bag(SpeakingNLA):
    def sample_explanations(self, *arguments, **options):
      raise AssertionError("nothing is explained")

  found, finding = measured(says_the_class, Bag)
  assert [one.row for one in finding.scores] == ["probe"]
  assert not found.gates[0].passed
  assert "hold 0; not tense, where nothing can be asked of explanations" in finding.verdict


def test_an_av_that_says_something_else_is_at_chance(measured):
  _, finding = measured(lambda words, position: "a note about a place")
  value = values(finding)
  assert value["cue reader", "explanation"] == 0.5
  assert value["trained on words", "explanation"] == 0.5
  assert "(not shown to be above chance)" in finding.verdict


def test_a_repeated_cue_is_no_longer_read_when_it_is_masked(measured):
  def repeats(words, position):
    text = " ".join(words)
    return next((f"it says: {one.cue}." for one in TASK.items if one.text == text), "note")

  _, finding = measured(repeats, masked=True)
  value = values(finding)
  assert value["cue reader", "explanation"] == 1
  assert value["cue reader", "cue masked"] == 0.5


def test_a_judge_that_no_one_can_read_is_void(measured, monkeypatch):
  class Deaf(Overlap):
    name = "deaf"

    def scores(self, questions, frame=None):
      return [np.array([1.0, 0.0]) for _ in questions]

  monkeypatch.setattr(panel, "word_judges", lambda subject: [Deaf()])
  _, finding = measured(says_the_class)
  assert {one.column for one in finding.scores if "deaf" in one.column} == {"tense, deaf (void)"}


# The items


@pytest.mark.parametrize(
  "make, name",
  [
    *((labelled.sentences, name) for name in labelled.SENTENCES),
    *((labelled.users, name) for name in labelled.TRAITS),
  ],
)
def test_items_are_balanced_of_a_seed_and_give_no_value_away(make, name):
  task = make(name, 80, 3)
  counts = np.bincount(task.labels, minlength=len(task.classes))
  assert len(set(counts)) == 1 and 76 <= counts.sum() <= 80
  assert make(name, 80, 3) == task and make(name, 80, 4).items != task.items
  assert len(set(task.groups)) >= 10
  for one in task.items:
    assert one.cue in one.text and "{" not in one.text
    if make is labelled.users:
      words = one.text.lower().split()
      assert not any(value.lower() in words for value in task.classes)

  # Every group holds each class equally often, so that the group tells nothing.
  for group in set(task.groups):
    mine = np.bincount(task.labels[task.groups == group], minlength=len(task.classes))
    assert len(set(mine)) == 1
