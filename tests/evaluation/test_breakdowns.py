"""Sources and positions are measured on their own rows."""

import dataclasses

import numpy as np
import pytest
from support.known_pair import PER_DOCUMENT, ROWS, KnownNLA, vectors, write_store

from nla_jax import quantities
from nla_jax.autoencoder import fve
from nla_jax.data.store.documents import StoredDocument
from nla_jax.evaluation import breakdowns, harness
from nla_jax.evaluation import subject as subject_lib
from nla_jax.evaluation.subject import draw_subject

SOURCES = ("article", "talk", "article")
TALK = range(PER_DOCUMENT, 2 * PER_DOCUMENT)  # held-out rows of the second document


def evaluate(store, nla=None, **options):
  return harness.evaluate(nla or KnownNLA(), store, bootstrap_samples=50, **options)


def subject_of(store):
  return draw_subject(KnownNLA(), store, texts=None, before_rl=None)


def test_a_source_is_measured_on_its_own_rows_against_its_own_variance(tmp_path):
  """The AV is silent on all of the talk and on nothing else."""
  store = write_store(tmp_path / "store", sources=SOURCES)
  found = evaluate(store, KnownNLA(silent=[str(i) for i in TALK])).metrics["by_source"]
  assert {name: part["rows"] for name, part in found.items()} == {"article": 16, "talk": 8}
  assert found["article"]["fve"]["round_trip"]["value"] == pytest.approx(1, abs=1e-5)

  talk, mine = found["talk"], vectors()[list(TALK)]
  assert talk["baseline_variance"] == pytest.approx(fve.baseline_variance(mine))
  expected = fve.fve(fve.mse_nrm(np.eye(8)[:1], mine), talk["baseline_variance"])
  for key in ("round_trip", "greedy"):
    assert talk["fve"][key]["value"] == pytest.approx(expected, rel=1e-5)
  assert talk["controls"]["empty_text"]["value"] == pytest.approx(expected, rel=1e-5)


def test_every_comparison_is_there_for_each_source(tmp_path):
  store = write_store(tmp_path / "store", sources=SOURCES)
  twins = {i: str(i % ROWS) for i in range(2 * ROWS)}
  found = evaluate(store, texts=twins, before_rl=KnownNLA(ar="any")).metrics
  for part in found["by_source"].values():
    assert part["fve"].keys() == found["fve"].keys()
    assert part["above_control"].keys() == found["above_control"].keys()
    assert {"fixed_critic", "round_trip", "greedy"} <= part["fve"].keys()
    assert {"retrieval", "mean_per_last_token", "shuffled_vector"} <= part["above_control"].keys()


def test_another_row_is_of_the_same_source(tmp_path):
  subject = subject_of(write_store(tmp_path / "store", sources=SOURCES))
  assert np.all(subject.sources[subject.other_rows] == subject.sources)
  assert sorted(subject.other_rows) == list(range(ROWS))
  articles = subject.sources == "article"
  assert np.all(subject.groups[subject.other_rows][articles] != subject.groups[articles])


def test_a_store_of_one_corpus_has_no_sources(tmp_path):
  report = evaluate(write_store(tmp_path / "store"))
  assert "by_source" not in report.metrics
  assert "by_position" in report.metrics


def test_ranges_of_positions_hold_their_own_rows_and_their_mean_is_the_whole():
  words_before = np.array([7, 8, 15, 16, 31, 32, 63, 64, 500])
  errors = {"round_trip": np.linspace(0.1, 0.9, 9), "greedy": np.ones(9)}
  rows = breakdowns.Rows(np.array(list("abcabcabc")), 0.8, 50, 0)
  found = breakdowns.by_position(words_before, rows, errors)
  counts = {"0-8": 1, "8-16": 2, "16-32": 2, "32-64": 2, "64+": 2}
  assert {name: part["rows"] for name, part in found.items()} == counts
  assert found["8-16"]["fve"]["round_trip"]["value"] == pytest.approx(1 - 0.25 / 0.8)
  assert found["8-16"]["fve"].keys() == {"round_trip"}
  weighted = sum(part["fve"]["round_trip"]["value"] * part["rows"] for part in found.values())
  assert weighted / 9 == pytest.approx(fve.fve(errors["round_trip"], 0.8))


def test_positions_of_a_conversation_count_from_behind_the_templates_beginning(
  tmp_path, monkeypatch
):
  subject = subject_of(write_store(tmp_path / "store"))
  monkeypatch.setattr(subject_lib, "opening", lambda tokenizer: [1, 101])
  begun = StoredDocument("d", "g", "held_out", np.array([1, 101, *range(50)]))
  plain = StoredDocument("e", "g", "held_out", np.array([1, *range(50)]))
  subject = dataclasses.replace(subject, documents=[begun, plain], positions=np.array([20, 20]))
  assert subject.words_before.tolist() == [18, 20]


def test_the_terminal_names_sources_positions_and_n(tmp_path):
  store = write_store(tmp_path / "store", sources=SOURCES)
  text = harness.table(evaluate(store, best_of=2, best_of_rows=8).metrics)
  assert "article: round trip, sampled" in text and "talk: above " in text
  assert "positions 0-8: round trip, sampled" in text
  assert "talk: positions 0-8: round trip, sampled" in text
  assert "n = 2: round trip, best of n" in text and "distinct explanations" in text


def test_parts_are_read_with_the_same_table():
  part = {"fve": {"greedy": 0.5}}
  metrics = {"by_source": {"talk": part, "note": 3}}
  (found,) = quantities.parts(metrics, quantities.BY_SOURCE).values()
  assert quantities.find(found, "greedy").value == 0.5
  assert quantities.unknown(metrics, "number") == []
