"""FVE means what the contract says, and its interval means what an interval should."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nla_jax.autoencoder import fve
from nla_jax.errors import NLAError
from nla_jax.evaluation import intervals


@pytest.fixture
def golds() -> np.ndarray:
  """Activations with a shared direction and very different norms, as residual streams have."""
  generator = np.random.default_rng(7)
  directions = generator.normal(size=(200, 16)) + 1.5 * np.eye(16)[0]
  return (directions * generator.lognormal(0, 2, size=(200, 1))).astype(np.float32)


def test_predicting_the_golds_gives_an_fve_of_one(golds):
  b = fve.baseline_variance(golds)
  assert fve.fve(fve.mse_nrm(golds, golds), b) == pytest.approx(1.0, abs=1e-9)


def test_predicting_the_golds_at_another_norm_is_as_good(golds):
  scales = np.linspace(0.01, 100, len(golds))[:, None]
  assert np.abs(fve.mse_nrm(golds * scales, golds)).max() < 1e-10


def test_b_is_the_error_of_the_best_constant(golds):
  """mu of the unit golds, left un-normalised, has FVE 0, and every other constant vector is worse."""
  units = fve.normalise(golds.astype(np.float64))
  mu = units.mean(axis=0)
  b = fve.baseline_variance(golds)

  def fve_of_constant(constant):
    return fve.fve(np.square(units - constant).sum(axis=-1), b)

  assert fve_of_constant(mu) == pytest.approx(0.0, abs=1e-12)
  assert fve_of_constant(mu / np.linalg.norm(mu)) < -0.1
  assert fve_of_constant(mu * 0.9) < 0 and fve_of_constant(mu * 1.1) < 0


def test_b_equals_the_contracts_formula_at_scale_sqrt_d(golds):
  scaled = golds / np.linalg.norm(golds, axis=-1, keepdims=True) * 4.0  # sqrt(16)
  assert fve.baseline_variance(golds) == pytest.approx(
    np.mean((scaled - scaled.mean(0)) ** 2), rel=1e-5
  )


def test_mse_nrm_is_two_times_one_minus_cosine_and_equals_the_contracts_mean_over_dims(golds):
  predictions = golds[::-1]
  mse = fve.mse_nrm(predictions, golds)
  np.testing.assert_allclose(mse, 2 * (1 - fve.cosine(predictions, golds)), atol=1e-5)
  scaled = np.mean((fve.normalise(predictions, 4.0) - fve.normalise(golds, 4.0)) ** 2, axis=-1)
  np.testing.assert_allclose(mse, scaled, rtol=1e-5)


def test_mse_nrm_is_zero_two_and_four_for_same_orthogonal_and_opposite_directions():
  gold = np.array([[3.0, 0.0]] * 3)
  prediction = np.array([[0.1, 0.0], [0.0, 50.0], [-7.0, 0.0]])
  np.testing.assert_allclose(fve.mse_nrm(prediction, gold), [0, 2, 4], atol=1e-12)


def test_normalising_the_mean_inflates_fve(golds):
  b, inflated = fve.baseline_variance(golds), fve.baseline_variance_inflated(golds)
  assert inflated > 1.1 * b
  mse = fve.mse_nrm(golds + golds[::-1], golds)
  assert fve.fve_inflated(mse, golds) > fve.fve(mse, b)


def test_the_two_baselines_relate_as_published_for_qwen():
  """Both follow from ||mu|| alone, 1 - m^2 and 2 (1 - m): a corpus with b = 0.72 must show 0.94."""
  m = np.sqrt(1 - 0.72)
  golds = np.array([[m, np.sqrt(1 - m * m)], [m, -np.sqrt(1 - m * m)]])
  assert fve.baseline_variance(golds) == pytest.approx(0.72)
  assert fve.baseline_variance_inflated(golds) == pytest.approx(0.94, abs=0.005)


def test_a_zero_prediction_scores_one_and_has_a_finite_gradient():
  gold = jnp.array([1.0, 2.0, 2.0])
  value, gradient = jax.value_and_grad(lambda p: fve.mse_nrm(p, gold))(jnp.zeros(3))
  assert float(value) == pytest.approx(1.0)
  assert np.isfinite(gradient).all()


def test_traced_jax_agrees_with_numpy(golds):
  b = fve.baseline_variance(golds)
  traced = jax.jit(lambda p, g: fve.fve(fve.mse_nrm(p, g), b))(golds[::-1], golds)
  assert float(traced) == pytest.approx(
    float(fve.fve(fve.mse_nrm(golds[::-1], golds), b)), rel=1e-4
  )


def test_bfloat16_input_is_measured_in_float32(golds):
  rounded = golds.astype(ml_dtypes.bfloat16)
  assert fve.mse_nrm(rounded, golds).dtype == np.float32
  assert fve.normalise(jnp.asarray(rounded)).dtype == jnp.float32
  assert fve.mse_nrm(rounded, golds).max() < 1e-4


def test_per_activation_fve_averages_to_the_fve(golds):
  mse = fve.mse_nrm(golds[::-1], golds)
  assert fve.fve_per_activation(mse, 0.5).mean() == pytest.approx(fve.fve(mse, 0.5), rel=1e-5)


def clustered(generator, clusters, size, between, within):
  """mse of mean 0.5 with a shared effect per cluster: [clusters * size], and the cluster of each."""
  effect = generator.normal(0, between, size=(clusters, 1))
  mse = 0.5 + effect + generator.normal(0, within, size=(clusters, size))
  return mse.ravel(), np.repeat(np.arange(clusters), size)


def test_the_interval_covers_the_truth_about_95_times_in_100():
  generator = np.random.default_rng(0)
  hits = 0
  for trial in range(200):
    mse, groups = clustered(generator, clusters=40, size=5, between=0.1, within=0.1)
    low, high = intervals.bootstrap(mse, groups, 1.0, samples=300, seed=trial).ci95
    hits += low <= 0.5 <= high
  assert 176 <= hits <= 199


def test_the_interval_is_set_by_its_seed():
  mse, groups = clustered(np.random.default_rng(1), 30, 4, 0.1, 0.1)
  first = intervals.bootstrap(mse, groups, 0.7, seed=3)
  assert first == intervals.bootstrap(mse, groups, 0.7, seed=3)
  assert first.ci95 != intervals.bootstrap(mse, groups, 0.7, seed=4).ci95


def test_rows_of_one_document_widen_the_interval():
  mse, groups = clustered(np.random.default_rng(2), 50, 10, 0.2, 0.02)

  def width(estimate):
    return estimate.ci95[1] - estimate.ci95[0]

  by_document = intervals.bootstrap(mse, groups, 1.0)
  by_row = intervals.bootstrap(mse, np.arange(len(mse)), 1.0)
  assert by_document.value == by_row.value
  assert width(by_document) > 2.5 * width(by_row)


def test_groups_may_be_names_and_the_order_of_rows_does_not_matter():
  mse, groups = clustered(np.random.default_rng(3), 20, 3, 0.2, 0.1)
  names = np.array([f"page {group:03d}" for group in groups])
  order = np.random.default_rng(4).permutation(len(mse))
  by_number, by_name = (
    intervals.bootstrap(mse, groups, 0.9),
    intervals.bootstrap(mse[order], names[order], 0.9),
  )
  np.testing.assert_allclose(by_number.ci95, by_name.ci95)


def test_the_point_estimate_weighs_rows_not_documents_and_lies_inside_its_interval():
  mse, groups = np.array([0.0, 0.0, 0.0, 0.8]), np.array([0, 0, 0, 1])
  estimate = intervals.bootstrap(mse, groups, 0.5)
  assert estimate.value == pytest.approx(1 - 0.2 / 0.5)
  assert estimate.ci95[0] <= estimate.value <= estimate.ci95[1]
  assert estimate.n == 4


def test_equal_rows_leave_no_uncertainty_however_unequal_the_documents():
  """Each draw is divided by the rows it drew, not by the rows there are."""
  estimate = intervals.bootstrap(np.full(12, 0.3), np.array([0] * 9 + [1, 2, 3]), 0.5)
  np.testing.assert_allclose(estimate.ci95, [0.4, 0.4])


def test_a_paired_difference_is_tighter_than_its_two_sides():
  generator = np.random.default_rng(5)
  mse_b, groups = clustered(generator, 40, 5, 0.3, 0.01)
  mse_a = mse_b - 0.05 + generator.normal(0, 0.01, size=mse_b.shape)
  difference = intervals.paired_bootstrap(mse_a, mse_b, groups, 0.5)
  assert difference.value == pytest.approx(0.1, abs=0.01)
  assert 0 < difference.ci95[0] < difference.ci95[1]
  a, b = intervals.bootstrap(mse_a, groups, 0.5), intervals.bootstrap(mse_b, groups, 0.5)
  assert difference.value == pytest.approx(a.value - b.value)
  assert a.ci95[0] < b.ci95[1]


def test_one_document_gives_no_interval_rather_than_a_false_one():
  estimate = intervals.bootstrap(np.array([0.1, 0.2]), np.array([9, 9]), 1.0)
  assert estimate.ci95 is None
  assert json.loads(json.dumps(estimate.to_dict())) == {
    "value": pytest.approx(0.85),
    "ci95": None,
    "n": 2,
  }


@pytest.mark.parametrize(
  "golds, words",
  [
    (np.ones((1, 4)), "2 or more"),
    (np.ones((5, 4)), "same way"),
    (np.array([[1.0, np.nan], [1.0, 0.0]]), "1 of 2 activations are not finite"),
  ],
)
def test_golds_without_a_baseline_are_refused(golds, words):
  with pytest.raises(NLAError, match=words):
    fve.baseline_variance(golds)


def test_what_cannot_be_averaged_is_refused():
  with pytest.raises(NLAError, match="1 of 2 values are not finite"):
    intervals.bootstrap(np.array([0.1, np.nan]), np.array([0, 1]), 1.0)
  with pytest.raises(NLAError, match="one group for each"):
    intervals.bootstrap(np.array([0.1, 0.2]), np.array([0]), 1.0)
  with pytest.raises(NLAError, match="same rows"):
    intervals.paired_bootstrap(np.zeros(2), np.zeros(3), np.zeros(2), 1.0)
  with pytest.raises(NLAError, match="positive"):
    intervals.bootstrap(np.zeros(2), np.arange(2), 0.0)
