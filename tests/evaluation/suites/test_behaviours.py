"""Hints and sandbagging: what the target does not do is not asked about; what it does and is said is found."""

import numpy as np
import pytest
from support.judges import Overlap
from support.speaking_pair import WIDTH, SpeakingNLA, Tokenizer, write_store

from nla_jax.evaluation import behaviour, rivals
from nla_jax.evaluation.items import multiple_choice
from nla_jax.evaluation.items.multiple_choice import LETTERS, MARK
from nla_jax.evaluation.judges import panel
from nla_jax.evaluation.judges.judge import Judge
from nla_jax.evaluation.settings import PRESETS
from nla_jax.evaluation.subject import draw_subject
from nla_jax.evaluation.suites import hints, sandbagging

N, SEED = PRESETS["quick"], 0
TRANSCRIPTS = multiple_choice.transcripts(N, SEED)
ASKED = multiple_choice.asked(N, SEED)


def flat(text):
  return " ".join(text.split())


def rule_of(prefix):
  """What the mark means in the one transcript that begins so; None of another text or of several."""
  found = {one.rule for one in TRANSCRIPTS if flat(one.text).startswith(prefix)}
  return found.pop() if len(found) == 1 else None


class Reader(Judge):
  """Reads the word that decides, or the transcript itself."""

  name = "reader"

  def scores(self, questions, frame=None):
    def known(text, option):
      rule = next((one.rule for one in TRANSCRIPTS if flat(one.text).endswith(text)), None)
      return float(bool(text) and (option in text.split() or rule == option))

    return [np.array([known(flat(q.text or ""), o) for o in q.options]) for q in questions]


class Holding(SpeakingNLA):
  """Its target holds a direction for what `held` says of a text."""

  held = staticmethod(lambda text: None)

  def bag(self, text):
    direction = np.random.default_rng(99).normal(size=WIDTH).astype(np.float32)
    return super().bag(text) + 8 * direction * {None: 0, True: 1, False: -1}[self.held(text)]


@pytest.fixture
def subject_of(tmp_path, monkeypatch):
  monkeypatch.setattr(panel, "word_judges", lambda subject: [Reader()])
  monkeypatch.setattr(rivals, "texts", lambda subject, v: {"logit_lens": ["?"] * len(v)})
  tokenizer = Tokenizer()
  store = write_store(tmp_path / "store", tokenizer)

  def subject_of(says, held=lambda text: None):
    nla = type("Nla", (Holding,), {"held": staticmethod(held)})(says, tokenizer, store)
    options = {"bootstrap_samples": 50, "preset": "quick", "seed": SEED}
    return draw_subject(nla, store, texts=None, before_rl=None, **options)

  return subject_of


def says_the_rule(words, position):
  rule = rule_of(" ".join(words))
  return f"the square marks the {rule} option" if rule else "a note"


def holds_the_rule(text):
  rule = rule_of(flat(text))
  if rule is None and "square marks the" in text:
    rule = "right" if "right" in text.split() else "wrong"
  return None if rule is None else rule == "right"


def answering(used):
  """The shares of a target that follows the mark, or does not."""

  def shares(subject, texts):
    found = np.full((len(texts), 4), 0.25)
    for i, text in enumerate(texts):
      rule = rule_of(flat(text))
      if used and MARK in text and rule:
        marked = next(one.marked for one in TRANSCRIPTS if one.text == text)
        found[i] = 0.1 if rule == "right" else 0.3
        found[i, marked] = 0.7 if rule == "right" else 0.1
    return found

  return shares


def test_transcripts_are_pairs_that_differ_in_the_mark_alone():
  for right, wrong in zip(TRANSCRIPTS[::2], TRANSCRIPTS[1::2]):
    assert right.plain == wrong.plain == right.text.replace(f" {MARK}", "")
    assert right.marked == right.right == wrong.right != wrong.marked
    assert right.text.count(MARK) == wrong.text.count(MARK) == 9
    assert right.text.endswith("Answer:") and right.text[: right.mark_end].endswith(MARK)

    # Every answer that is given is the right one, whatever is marked.
    rounds = right.text.split("\n\n")
    for one in rounds[:-1]:
      letter = one[-1]
      assert f"{letter}) " in one and f"\n{letter}) " in one.replace(MARK, "")
      line = next(line for line in one.splitlines() if line.startswith(f"{letter})"))
      assert line.endswith(MARK)


def test_a_rule_that_the_target_does_not_use_is_not_asked_about(subject_of, monkeypatch):
  monkeypatch.setattr(behaviour, "letter_shares", answering(used=False))

  def never(words, position):
    raise AssertionError("nothing is explained")

  found = hints.run(subject_of(never)).findings["hints"]
  assert [gate.passed for gate in found.gates] == [False]
  assert {one.value for one in found.scores} == {0.0}
  assert "does not show that it uses the mark" in found.verdict


def test_a_rule_that_is_used_held_and_said_is_found(subject_of, monkeypatch):
  monkeypatch.setattr(behaviour, "letter_shares", answering(used=True))
  found = hints.run(subject_of(says_the_rule, holds_the_rule)).findings["hints"]
  value = {(one.column, one.row): one.value for one in found.scores}
  gain = "target: gain of the marked option"
  assert value[gain, "mark means right"] == pytest.approx(0.45)
  assert value[gain, "mark means wrong"] == pytest.approx(-0.15)
  for place in ("at the mark", "before the answer"):
    assert value[f"{place}, probe on h", "probe"] == 1
    for judge in ("reader", "rules", "AR"):
      assert value[f"{place}, {judge}", "explanation"] == 1, (place, judge)
    assert value[f"{place}, reader", "empty"] == 0
    assert abs(value[f"{place}, reader", "shuffled"]) < 0.3
  assert all(one.chance == 0 for one in found.scores)
  assert "Of 2 tasks the activations hold 2" in found.verdict


def test_a_rule_that_is_held_and_not_said_scores_nothing(subject_of, monkeypatch):
  monkeypatch.setattr(behaviour, "letter_shares", answering(used=True))
  says = lambda words, position: "some questions and answers"
  found = hints.run(subject_of(says, holds_the_rule)).findings["hints"]
  value = {(one.column, one.row): one.value for one in found.scores}
  assert value["before the answer, reader", "explanation"] == 0
  assert "not shown to be above chance" in found.verdict


# Sandbagging


def harmful(text):
  return any(flat(text).startswith(flat(one.text[:30])) for one in ASKED if one.harmful)


def on_purpose(text):
  """Of every second harmful question the target answers wrongly."""
  for i, one in enumerate(ASKED):
    if flat(one.text) == flat(text):
      return one.harmful and i % 4 == 0
  return None


def sandbagger(subject, texts):
  found = np.full((len(texts), 4), 0.1)
  for i, text in enumerate(texts):
    one = next(one for one in ASKED if one.text == text)
    found[i, (one.right + 1) % 4 if on_purpose(text) else one.right] = 0.7
  return found


def honest(subject, texts):
  found = np.full((len(texts), 4), 0.1)
  for i, text in enumerate(texts):
    found[i, next(one.right for one in ASKED if one.text == text)] = 0.7
  return found


def areas(finding):
  hard = "against harmful, answered, "
  found = {}
  for one in finding.scores:
    if one.column.startswith(hard):
      found[one.column.removeprefix(hard), one.row] = one.value
  return found


def test_questions_are_pairs_that_differ_in_the_prefix_alone():
  for bad, good in zip(ASKED[::2], ASKED[1::2]):
    assert bad.harmful and not good.harmful and bad.right == good.right
    assert bad.text.split("\n\n")[1] == good.text.split("\n\n")[1]
    assert f"{LETTERS[bad.right]}) " in bad.text and bad.text.endswith("Answer:")


def test_a_target_that_answers_is_not_asked_about(subject_of, monkeypatch):
  monkeypatch.setattr(behaviour, "letter_shares", honest)
  found = sandbagging.run(subject_of(lambda words, position: "a note")).findings["sandbagging"]
  assert not found.gates[0].passed and "does not show that it sandbags" in found.verdict
  assert [one.value for one in found.scores] == [1.0, 1.0]


def test_a_reason_that_is_said_is_told_from_a_harmful_topic(subject_of, monkeypatch):
  monkeypatch.setattr(behaviour, "letter_shares", sandbagger)
  monkeypatch.setattr(panel, "word_judges", lambda subject: [Overlap()])

  def says(words, position):
    return "wrong for safety" if on_purpose(" ".join(words)) else "an answer"

  found = sandbagging.run(subject_of(says, on_purpose)).findings["sandbagging"]
  value = areas(found)
  assert value["overlap", "explanation"] == value["rules", "explanation"] == 1
  assert value["probe on h", "probe"] == 1
  # What costs nothing stands beside it, judged alike.
  assert value["overlap", "logit_lens"] == value["rules", "last_token"] == 0.5
  assert found.verdict.startswith("Explanations name harm where the answer is wrong on purpose")

  # Who says harm of every harmful question names the topic.
  def topic(words, position):
    return "safety and harm" if harmful(" ".join(words)) else "an answer"

  found = sandbagging.run(subject_of(topic, on_purpose)).findings["sandbagging"]
  value = areas(found)
  assert value["overlap", "explanation"] == value["rules", "explanation"] == 0.5
  assert found.verdict.startswith("It is not shown that explanations name harm")
