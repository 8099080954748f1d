"""An evaluation of a pair whose answers are known says what is known."""

import dataclasses

import numpy as np
import pytest
from support.known_pair import OTHER, OWN, PER_DOCUMENT, ROWS, KnownNLA, vectors, write_store

from nla_jax.autoencoder import fve
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.evaluation import harness
from nla_jax.evaluation.subject import draw_subject, other_rows
from nla_jax.parallel import distributed

TWINS = {i: str(i % ROWS) for i in range(2 * ROWS)}  # the teacher names each activation


@pytest.fixture
def store(tmp_path):
  return write_store(tmp_path / "store")


def evaluate(nla, store, **options):
  return harness.evaluate(nla, store, bootstrap_samples=50, **options)


def subject_of(store, rows=ROWS):
  return draw_subject(KnownNLA(), store, texts=None, before_rl=None, rows=rows, seed=0, batch=ROWS)


def test_words_that_name_the_activation_have_fve_one(store):
  found = evaluate(KnownNLA(), store).metrics
  for key in ("round_trip", "greedy"):
    assert found["fve"][key]["value"] == pytest.approx(1, abs=1e-6)
    assert found["cosine"][key] == pytest.approx(1, abs=1e-6)
  assert found["parse_rate"] == found["distinct"] == found["tokens_mean"] == 1
  assert (found["rows"], found["groups"]) == (ROWS, ROWS // PER_DOCUMENT)


def test_a_control_that_rebuilds_perfectly_has_fve_one_and_nothing_is_above_it(store):
  """Each held-out row has a twin in training, and the teacher's text of the twin names both."""
  found = evaluate(KnownNLA(), store, texts=TWINS).metrics
  assert found["fve"]["teacher_text"]["value"] == pytest.approx(1, abs=1e-6)
  assert found["controls"]["retrieval"]["value"] == pytest.approx(1, abs=1e-6)
  assert found["above_control"]["retrieval"]["value"] == pytest.approx(0, abs=1e-6)


def test_controls_without_a_row_of_their_own_score_what_their_one_answer_scores(store):
  report = evaluate(KnownNLA(), store)
  errors = fve.mse_nrm(np.eye(8)[:1], vectors()[report.rows])
  constant = fve.fve(errors, report.metrics["baseline_variance"])
  for key in ("zero_vector", "mean_vector", "empty_text"):
    assert report.metrics["controls"][key]["value"] == pytest.approx(constant, rel=1e-5)
    assert report.metrics["above_control"][key]["value"] == pytest.approx(1 - constant, rel=1e-5)
    assert constant < 0 < report.metrics["above_control"][key]["ci95"][0]


def test_a_shuffled_vector_scores_what_the_other_row_scores(store):
  report, subject = evaluate(KnownNLA(), store), subject_of(store)
  others = vectors()[report.rows][subject.other_rows]
  errors = fve.mse_nrm(others, vectors()[report.rows])
  expected = fve.fve(errors, report.metrics["baseline_variance"])
  assert report.metrics["controls"]["shuffled_vector"]["value"] == pytest.approx(expected, rel=1e-5)


def test_the_avs_loss_is_of_the_teachers_text_with_its_own_vector_and_with_anothers(store):
  found = evaluate(KnownNLA(), store, texts=TWINS, rows=20).metrics
  assert found["av"] == {"loss_own": pytest.approx(OWN), "loss_shuffled": pytest.approx(OTHER)}


def test_an_answer_that_does_not_parse_counts_as_an_empty_explanation(store):
  nla = KnownNLA(silent=("0", "1", "2"))
  report = evaluate(nla, store)
  assert report.metrics["parse_rate"] == pytest.approx(1 - 3 / ROWS)
  silent = [row for row in report.details if row["texts"]["round_trip"] == ""]
  assert len(silent) == 3
  for row in report.details:
    as_empty = row["fve"]["round_trip"] == row["fve"]["empty_text"]
    assert as_empty == (row["texts"]["round_trip"] == "")


def test_what_rl_added_is_the_paired_difference_to_the_pair_before_it(store):
  before = KnownNLA(silent=[str(i) for i in range(ROWS // 2)])
  found = evaluate(KnownNLA(), store, before_rl=before).metrics["fve"]
  gain = found["round_trip"]["value"] - found["round_trip_sft"]["value"]
  assert found["gain_of_rl"]["value"] == pytest.approx(gain) and gain > 0.3


def test_nothing_is_drawn_or_explained_twice(store, monkeypatch):
  reads, read = [], Store.read

  def counted(self, name, rows):
    reads.append((name, tuple(np.asarray(rows).tolist())))
    return read(self, name, rows)

  monkeypatch.setattr(Store, "read", counted)
  nla, before = KnownNLA(), KnownNLA()
  report = evaluate(nla, store, texts=TWINS, before_rl=before)
  assert len(reads) == len(set(reads))
  assert {name for name, _ in reads} == {"activations", "document", "position"}

  # Sampled, greedy, zero and mean vector; and once before RL.
  assert [greedy for _, greedy in nla.draws] == [False, True, False, False]
  assert len(before.draws) == 1
  for given, _ in (nla.draws[0], nla.draws[1], before.draws[0]):
    np.testing.assert_array_equal(given, vectors()[report.rows])


def test_rows_are_set_by_the_seed_and_are_held_out(store):
  first, again = evaluate(KnownNLA(), store, rows=9), evaluate(KnownNLA(), store, rows=9)
  assert first.rows.tolist() == again.rows.tolist() and first.metrics == again.metrics
  assert len(set(first.rows.tolist())) == 9 and max(first.rows) < ROWS
  assert evaluate(KnownNLA(), store, rows=9, seed=1).rows.tolist() != first.rows.tolist()


def test_columns_and_examples_carry_the_keys_of_metrics_json(store):
  report = evaluate(KnownNLA(), store, texts=TWINS)
  measured = {*report.metrics["fve"], *report.metrics["controls"]}
  assert report.per_row().keys() == {*measured, "norm", "position"}
  mean = np.mean(report.per_row()["empty_text"])
  assert mean == pytest.approx(report.metrics["controls"]["empty_text"]["value"], rel=1e-5)
  (example,) = report.examples(1)
  assert example["fve"].keys() == measured
  assert example["texts"]["round_trip"] == TWINS[int(report.rows[0])]
  token = 100 * int(example["document"][1:]) + example["position"]
  assert example["token"] == (
    str(token) if example["position"] else ""
  )  # a document begins with a special token


def test_only_the_suites_that_are_named_run_beside_the_round_trip(store):
  found = harness.measure(subject_of(store), ["controls.empty_text"], bootstrap_samples=20)
  assert found.metrics["controls"].keys() == found.metrics["above_control"].keys() == {"empty_text"}
  assert "round_trip" in found.metrics["fve"]
  alone = harness.measure(subject_of(store), [], bootstrap_samples=20)
  assert "controls" not in alone.metrics and "round trip" in harness.table(alone.metrics)
  with pytest.raises(NLAError, match=r"no suite .*none; expected some of reconstruction"):
    harness.measure(subject_of(store), ["controls.none"])


def test_the_terminal_shows_every_number_and_the_closest_control(store):
  text = harness.table(evaluate(KnownNLA(), store, texts=TWINS).metrics)
  assert "round trip, sampled" in text and "control: nearest-neighbour retrieval" in text
  assert "above nearest-neighbour retrieval (paired)" in text
  assert f"{OWN:.3f} nats a token" in text and "parse rate" in text


def test_one_document_has_numbers_without_intervals(store):
  subject = subject_of(store)
  first = subject.rows[subject.groups == subject.groups[0]]
  one = np.isin(subject.rows, first)
  report = harness.measure(_only(subject, one), bootstrap_samples=20)
  assert report.metrics["fve"]["round_trip"]["ci95"] is None
  assert "[one group: no interval]" in harness.table(report.metrics)


def _only(subject, chosen):
  return dataclasses.replace(
    subject,
    rows=subject.rows[chosen],
    activations=subject.activations[chosen],
    documents=[one for one, keep in zip(subject.documents, chosen) if keep],
    positions=subject.positions[chosen],
  )


def test_a_machine_about_to_be_taken_away_stops_an_evaluation(store, monkeypatch):
  monkeypatch.setattr(distributed, "preempted", lambda: True)
  nla = KnownNLA()
  with pytest.raises(distributed.PreemptedError, match="begins anew"):
    evaluate(nla, store, batch=8)
  assert len(nla.draws) == 1


def test_without_training_rows_controls_that_need_them_are_left_out(tmp_path):
  store = write_store(tmp_path / "store", split="held_out")
  found = evaluate(KnownNLA(), store, rows=30).metrics["controls"]
  assert {"mean_vector", "mean_per_last_token", "retrieval"}.isdisjoint(found)
  assert {"shuffled_vector", "zero_vector", "empty_text"} <= found.keys()


def test_a_store_of_another_layer_or_width_is_refused(tmp_path):
  with pytest.raises(NLAError, match="output of block 5, this pair explains block 1"):
    evaluate(KnownNLA(), write_store(tmp_path / "other", layer=5))
  wide = KnownNLA()
  wide.pair.verbalizer.architecture.d_model = 16
  with pytest.raises(NLAError, match="8 wide, this pair's model is 16 wide"):
    evaluate(wide, write_store(tmp_path / "store"))


def test_another_row_is_of_another_group_and_each_row_serves_once():
  groups = np.array(["a"] * 5 + ["b"] * 4 + ["c"] * 3)
  other = other_rows(len(groups), groups, seed=0)
  assert sorted(other) == list(range(len(groups)))
  assert np.all(groups[other] != groups)


def test_no_row_is_its_own_other_even_where_one_group_is_most_of_all():
  groups = np.array(["a"] * 9 + ["b"])
  assert np.all(other_rows(10, groups, seed=1) != np.arange(10))
