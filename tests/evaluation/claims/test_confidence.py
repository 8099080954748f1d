"""A confidence finds what tells true claims from false ones, and is at chance where nothing does."""

import json

import numpy as np
import pytest

from nla_jax.autoencoder.explanation import Claim
from nla_jax.errors import NLAError
from nla_jax.evaluation import calibration, ranking
from nla_jax.evaluation.claims import confidence
from nla_jax.evaluation.claims.evidence import FEATURES

N, GROUPS = 1200, 40


def drawn(informative, seed=0):
  """Claims whose truth follows the first feature, or nothing; their groups."""
  random = np.random.default_rng(seed)
  values = random.normal(size=(N, len(FEATURES)))
  odds = 2.0 * values[:, 0] * informative + 0.5
  truth = random.random(N) < 1 / (1 + np.exp(-odds))
  claims = [Claim(0, "a", (0, 1), "Next", "theme" if i % 2 else "detail") for i in range(N)]
  return claims, values, truth, np.arange(N) % GROUPS


def fitted(informative, seed=0):
  claims, values, truth, groups = drawn(informative, seed)
  names = confidence.column_names(claims)
  x = confidence.columns(claims, values, names)
  return *confidence.held_out(x, truth, groups, names), truth, x, names


def test_it_finds_the_feature_that_tells_true_from_false_and_is_calibrated():
  p, fold, truth, x, names = fitted(True)
  assert ranking.ranks(p, truth, fold).auc > 0.8
  assert calibration.calibration_error(p, truth) < 0.05
  weights = confidence.fit(x, truth, names).weights
  assert np.abs(weights).argmax() == 0 and weights[0] == pytest.approx(2, abs=0.4)
  assert calibration.brier(p, truth) < truth.mean() * (1 - truth.mean())


def test_it_is_at_chance_where_nothing_tells():
  found, spread = [], []
  for seed in range(10):
    p, fold, truth, *_ = fitted(False, seed)
    found.append(ranking.ranks(p, truth, fold).auc)
    assert p.mean() == pytest.approx(truth.mean(), abs=0.01)
    spread.append(p.std())
  assert np.mean(found) == pytest.approx(0.5, abs=0.02)
  # It says of every claim about what is true of all of them: seven columns of noise, fitted on 960 claims, move a
  # probability by sqrt(7 / 960 / 0.24) · 0.24 = 0.04.
  assert np.mean(spread) == pytest.approx(0.04, abs=0.01)


def test_no_document_is_learned_and_tested():
  # A column that names the group would tell all of a group's claims, if its others were learned.
  groups = np.repeat(np.arange(40), 10)
  truth = np.random.default_rng(0).random(40)[groups] < 0.5
  x = np.eye(40)[groups]
  found, _ = confidence.held_out(x, truth, groups, [str(i) for i in range(40)])
  assert ranking.ranks(found, truth).auc < 0.6
  learned = confidence.fit(x, truth, ["a"] * 40).of_columns(x)
  assert ranking.ranks(learned, truth).auc > 0.95


def test_a_missing_value_counts_as_the_average():
  claims, values, truth, _ = drawn(True)
  values[::3, 0] = np.nan
  names = confidence.column_names(claims)
  model = confidence.fit(confidence.columns(claims, values, names), truth, names)
  assert np.isfinite(model.probability(claims, values)).all()
  blank = np.full((1, len(FEATURES)), np.nan)
  assert 0.4 < model.probability(claims[:1], blank)[0] < 0.8


def test_it_is_saved_as_json_and_read_back(tmp_path):
  claims, values, truth, _ = drawn(True)
  names = confidence.column_names(claims)
  model = confidence.fit(confidence.columns(claims, values, names), truth, names)
  model = model._replace(options={"samples": 8}, measured={"auc": 0.8})
  model.save(tmp_path / "confidence.json")
  again = confidence.load(tmp_path / "confidence.json")
  assert np.array_equal(again.probability(claims, values), model.probability(claims, values))
  assert (again.options, again.measured) == (model.options, model.measured)
  # A field that was never learned adds nothing.
  other = [Claim(0, "a", (0, 1), "quote", "theme")]
  assert 0 < again.probability(other, values[:1])[0] < 1


def test_it_is_found_in_metrics_and_its_absence_is_explained(tmp_path):
  claims, values, truth, _ = drawn(True)
  names = confidence.column_names(claims)
  model = confidence.fit(confidence.columns(claims, values, names), truth, names)
  path = tmp_path / "metrics.json"
  finding = {"data": {confidence.DATA: model.to_json()}}
  path.write_text(json.dumps({"suites": {"confabulation": finding}}))
  assert confidence.load(path).names == names
  for metrics in ({"suites": {"confabulation": {"data": {}}}}, {"suites": {}}, {}):
    path.write_text(json.dumps(metrics))
    with pytest.raises(NLAError, match="nla eval --suites=confabulation"):
      confidence.load(path)


def test_what_is_no_model_is_refused_in_a_line(tmp_path):
  with pytest.raises(NLAError, match="there is no such file"):
    confidence.load(tmp_path / "none.json")
  with pytest.raises(NLAError, match="no confidence of claims"):
    confidence.from_json({"format": "other"})
  with pytest.raises(NLAError, match="damaged"):
    confidence.from_json({"format": confidence.FORMAT, "names": ["a"]})
  claims, values, truth, _ = drawn(True)
  names = confidence.column_names(claims)
  found = confidence.fit(confidence.columns(claims, values, names), truth, names).to_json()
  with pytest.raises(NLAError, match="damaged"):
    confidence.from_json(json.loads(json.dumps(found)) | {"mean": [0.0]})


def test_auc_by_hand():
  assert ranking.ranks([1, 2, 3], [0, 0, 1]).auc == 1
  assert ranking.ranks([1, 2, 2], [0, 0, 1]).auc == 0.75
  assert np.isnan(ranking.ranks([1.0], [1]).auc)
  # A kind that decides is no knowledge within the kind.
  assert np.isnan(ranking.ranks([1, 1, 2, 2], [0, 0, 1, 1], list("aabb")).auc)
  assert ranking.ranks([1, 2, 8, 9], [0, 1, 0, 1], list("aabb")).auc == 1
  # Groups change the interval, never the number.
  random = np.random.default_rng(0)
  scores, truth = random.normal(size=200), random.random(200) < 0.5
  one, many = (
    ranking.ranks(scores, truth),
    ranking.ranks(scores, truth, None, np.arange(200) % 9),
  )
  assert many.won.shape == (9, 9) and many.auc == pytest.approx(one.auc)


def test_reliability_has_bins_of_as_many_claims():
  p, truth = np.linspace(0, 1, 100), np.ones(100)
  parts = calibration.reliability(p, truth)
  assert [n for *_, n in parts] == [10] * 10 and parts[0][0] < parts[-1][0]
  assert calibration.calibration_error(p, truth) == pytest.approx(0.5)


def test_an_interval_draws_whole_groups():
  # Of each of 20 groups 50 claims are the same one.
  random = np.random.default_rng(0)
  groups = np.repeat(np.arange(20), 50)
  scores, truth = random.normal(size=20)[groups], (random.random(20) < 0.5)[groups]
  low, high = ranking.auc_interval(ranking.ranks(scores, truth, None, groups))
  assert 0.3 < high - low < 0.8
  alone = ranking.auc_interval(ranking.ranks(scores, truth, None, np.arange(1000)))
  assert alone[1] - alone[0] < 0.1
  assert ranking.auc_interval(ranking.ranks(scores[:300], truth[:300], None, groups[:300])) is None


def test_a_difference_of_aucs_is_paired():
  _, values, truth, groups = drawn(True)
  good, noise = (ranking.ranks(values[:, j], truth, None, groups) for j in (0, 1))
  low, high = ranking.auc_interval(good, noise)
  assert low < good.auc - noise.auc < high and low > 0.2
  assert ranking.auc_interval(good, good) == (0.0, 0.0)
