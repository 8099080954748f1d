"""An AV that says what comes next, one that says the topic and one that is silent score what they should."""

import pytest
from support.judges import Deaf, Overlap
from support.speaking_pair import SpeakingNLA, Tokenizer, write_store

from nla_jax.evaluation import rivals
from nla_jax.evaluation.findings import is_void
from nla_jax.evaluation.items.continuations import OPTIONS, draw_arms
from nla_jax.evaluation.judges import panel
from nla_jax.evaluation.subject import draw_subject
from nla_jax.evaluation.suite import LeftOutError
from nla_jax.evaluation.suites import suffix_prediction


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  tokenizer = Tokenizer()
  return tokenizer, write_store(tmp_path_factory.mktemp("suffix") / "store", tokenizer)


@pytest.fixture(autouse=True)
def known_judges(monkeypatch):
  monkeypatch.setattr(panel, "word_judges", lambda subject: [Overlap()])
  monkeypatch.setattr(rivals, "texts", lambda subject, v: {"logit_lens": ["?"] * len(v)})


def subject_of(store, says, **options):
  tokenizer, held = store
  nla = SpeakingNLA(says, tokenizer, held)
  given = {"texts": None, "before_rl": None, "bootstrap_samples": 50, "preset": "quick", **options}
  return draw_subject(nla, held, **given)


def found(store, says, **options):
  finding = suffix_prediction.run(subject_of(store, says, **options)).findings["suffix_prediction"]
  return finding, {(one.column, one.row): one.value for one in finding.scores}


def what_follows(words, position):
  return " ".join(words[position + 1 : position + 33])


def topic(words, position):
  return f"a text of {words[0]}"


def test_options_are_fixed_other_texts_of_the_same_group_or_of_others(store):
  subject = subject_of(store, topic)
  arms = draw_arms(subject)
  assert [arm.name for arm in arms] == ["hard", "easy"] and arms[0].length == 32
  again = draw_arms(subject_of(store, what_follows))
  assert [arm.options for arm in again] == [arm.options for arm in arms]
  for arm in arms:
    assert len(arm.index) == subject.n
    for i, options, right in zip(arm.index, arm.options, arm.rights):
      own, at = subject.documents[i], subject.positions[i]
      truth = store[0].decode(own.tokens[at + 1 : at + 33])
      assert options[right] == truth and len(set(options)) == OPTIONS
      group = f"g{own.group.split()[1]}"
      same = [group in option.split() for option in options]
      assert sum(same) == (OPTIONS if arm.name == "hard" else 1)
      # None is of the context's own document.
      own_words = set(store[0].decode(own.tokens).split()) - {group}
      assert sum(bool(own_words & set(option.split())) for option in options) == 1
  assert len(set(arms[0].rights.tolist())) > 5


def test_an_av_that_says_what_follows_is_right_in_both_arms(store):
  finding, value = found(store, what_follows)
  for arm in ("hard", "easy"):
    assert value[f"{arm}, overlap", "explanation"] == 1
    assert value[f"{arm}, overlap", "skyline"] == 1
    assert value[f"{arm}, overlap", "empty"] == pytest.approx(0.1)
    assert value[f"{arm}, overlap", "shuffled"] < 0.2
  assert value["hard, AR", "explanation"] > 0.9
  gates = {gate.name: gate.passed for gate in finding.gates}
  assert all(gates.values()), gates
  assert finding.verdict.startswith("Explanations say which text comes next")
  assert {"greedy", "last_words", "last_token", "logit_lens"} <= {s.row for s in finding.scores}
  # Four tokens tell less than all of them do.
  points = finding.curves["explanation"]
  assert [x for x, _ in points] == [4, 8, 16, 32] and points[-1][1] == 1


def test_an_av_that_says_the_topic_is_right_in_the_easy_arm_alone(store):
  finding, value = found(store, topic)
  assert value["easy, overlap", "explanation"] == 1
  assert value["hard, overlap", "explanation"] == pytest.approx(0.1)
  assert finding.verdict.startswith("It is not shown that explanations say which text comes next")


def test_a_silent_av_scores_chance_and_the_parse_rate_says_so(store):
  finding, value = found(store, lambda words, position: None)
  assert value["hard, overlap", "explanation"] == pytest.approx(0.1)
  assert not {gate.name: gate.passed for gate in finding.gates}["parse rate"]


def test_a_judge_that_fails_its_planted_signal_is_void_and_decides_nothing(store, monkeypatch):
  monkeypatch.setattr(panel, "word_judges", lambda subject: [Deaf()])
  finding, _ = found(store, what_follows)
  columns = {one.column for one in finding.scores}
  assert {c for c in columns if "deaf" in c and not is_void(c)} == set()
  assert "hard, AR" in columns
  assert finding.verdict.startswith("Nothing is known: no judge found its planted signal")


def test_a_code_that_the_ar_alone_reads_is_illegible_information(store):
  """The AV says it backwards; the AR reads that, and the judge of words does not."""
  tokenizer, held = store

  class Coded(SpeakingNLA):
    def bag(self, text):
      return super().bag(" ".join(word.removeprefix("~") for word in text.split()))

  def coded(words, position):
    return " ".join("~" + word for word in what_follows(words, position).split())

  rows, documents = range(len(held)), held.read("document", slice(None))
  texts = {
    row: what_follows(
      tokenizer.decode(held.documents[int(documents[row])].tokens).split(),
      int(held.read("position", [row])[0]),
    )
    for row in rows
  }
  nla = Coded(coded, tokenizer, held)
  options = {"texts": texts, "before_rl": None, "bootstrap_samples": 50, "preset": "quick"}
  finding = suffix_prediction.run(draw_subject(nla, held, **options)).findings["suffix_prediction"]
  alarms = {s.column: s for s in finding.scores if s.row == "illegible information"}
  assert alarms["hard, AR less overlap"].ci95[0] > 0.5

  honest = SpeakingNLA(what_follows, tokenizer, held)
  finding = suffix_prediction.run(draw_subject(honest, held, **options)).findings[
    "suffix_prediction"
  ]
  calm = next(s for s in finding.scores if s.row == "illegible information")
  assert calm.value == pytest.approx(0, abs=1e-9)


def test_documents_without_a_rest_leave_the_suite_out(store, monkeypatch):
  monkeypatch.setattr("nla_jax.evaluation.items.continuations.LENGTHS", (90, 80))
  with pytest.raises(LeftOutError, match="has 16 tokens behind it"):
    suffix_prediction.run(subject_of(store, topic))
