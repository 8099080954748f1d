"""Suites that answer a question: named, run, left out, kept, and gone on with."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.known_pair import KnownNLA, write_store

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.evaluation import evaluate, harness, kept, suite
from nla_jax.evaluation.findings import Finding, Score, from_json
from nla_jax.evaluation.settings import PRESETS
from nla_jax.evaluation.suite import LeftOutError, Measured, Suite

PACKAGE = "nla_jax.evaluation.suites"


@pytest.fixture
def store(tmp_path):
  return write_store(tmp_path / "store")


@pytest.fixture
def ran(monkeypatch):
  """Three suites: `one` and `three` answer, `two` lacks a package; the list of those that ran."""
  ran = []

  def answering(name):
    def run(subject):
      ran.append(name)
      value = float(np.mean([len(text) for text in subject.sampled.texts]))
      score = Score("explanation", "length", value, None, subject.settings.items)
      return Measured({}, findings={name: Finding(f"{name}?", "So it is.", "letters", (score,))})

    return run

  def lacking(subject):
    ran.append("two")
    raise LeftOutError("wordnet is not installed (pip install it)")

  runs = {"one": answering("one"), "two": lacking, "three": answering("three")}
  for name, run in runs.items():
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.{name}", SimpleNamespace(SUITE=Suite(run)))
  monkeypatch.setattr(suite, "QUESTIONS", tuple(runs))
  monkeypatch.setattr(harness, "QUESTIONS", tuple(runs))
  return ran


def run(store, **options):
  return evaluate(KnownNLA(), store, bootstrap_samples=20, **options)


def test_only_the_named_suites_run_and_one_that_lacks_a_package_costs_no_other(store, ran, capsys):
  found = run(store, suites=["one", "two", "three"], preset="quick").metrics
  assert ran == ["one", "two", "three"] and list(found["suites"]) == ["one", "three"]
  assert from_json(found["suites"]["one"]).scores[0].n == PRESETS["quick"]
  assert "wordnet" in found["suites_left_out"]["two"]
  assert "the suite two is left out: wordnet is not installed" in capsys.readouterr().err

  # The round trip is measured in any case, and what nobody named is not.
  assert found["fve"].keys() == {"round_trip", "greedy"} and "controls" not in found
  text = harness.table(found)
  assert "one: one? (letters)" in text and "So it is." in text


def test_without_a_name_no_question_is_asked(store, ran):
  found = run(store).metrics
  assert ran == [] and "suites" not in found and "suites_left_out" not in found
  assert "shuffled_vector" in found["controls"]


def test_a_wrong_name_or_preset_costs_nothing(store, ran):
  nla = KnownNLA()
  with pytest.raises(NLAError, match=r"no suite four; expected some of reconstruction,.*three"):
    evaluate(nla, store, suites=["one", "four"])
  with pytest.raises(NLAError, match=r"no preset 'slow' of suites; expected quick, standard, full"):
    evaluate(nla, store, suites=["one"], preset="slow")
  assert ran == [] and nla.draws == []


def test_a_stopped_evaluation_goes_on_with_the_suite_that_it_had_not_finished(
  store, ran, tmp_path, monkeypatch
):
  def killed(subject):
    raise KeyboardInterrupt

  whole = run(store, suites=["one", "three"]).metrics["suites"]
  ran.clear()

  good = sys.modules[f"{PACKAGE}.three"].SUITE
  monkeypatch.setitem(sys.modules, f"{PACKAGE}.three", SimpleNamespace(SUITE=Suite(killed)))
  with pytest.raises(KeyboardInterrupt):
    run(store, suites=["one", "three"], keep=tmp_path / "kept")
  monkeypatch.setitem(sys.modules, f"{PACKAGE}.three", SimpleNamespace(SUITE=good))
  found = run(store, suites=["one", "three"], keep=tmp_path / "kept").metrics["suites"]
  assert ran == ["one", "three"] and found == whole

  # What was measured otherwise is measured again.
  run(store, suites=["one"], keep=tmp_path / "kept", preset="quick")
  assert ran == ["one", "three", "one"]


def test_a_finding_of_other_parameters_activations_or_texts_is_another(store, tmp_path):
  subject = harness.draw_subject(KnownNLA(), store, texts=None, before_rl=None, rows=8)
  first = kept.made_from(subject)
  assert first == kept.made_from(subject)

  draw = harness.draw_subject
  others = [
    draw(KnownNLA(ar="any"), store, texts=None, before_rl=None, rows=8),
    draw(KnownNLA(), store, texts=None, before_rl=KnownNLA(), rows=8),
    draw(KnownNLA(), store, texts={i: "1" for i in range(48)}, before_rl=None, rows=8),
    draw(KnownNLA(), store, texts=None, before_rl=None, rows=8, seed=1),
  ]
  assert all(kept.made_from(other) != first for other in others)


def test_a_file_that_was_made_from_something_else_is_not_read(tmp_path):
  finding = Finding("?", "!", "FVE", ())
  kept.Kept(tmp_path, {"preset": "quick"}).write("one", finding)
  assert kept.Kept(tmp_path, {"preset": "quick"}).read("one") == finding
  assert kept.Kept(tmp_path, {"preset": "full"}).read("one") is None
  assert kept.Kept(tmp_path, {"preset": "quick"}).read("two") is None
  assert files.exists(tmp_path / "one.json")
