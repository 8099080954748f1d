"""FVE means what `docs/interchange.md` says."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nla_jax.autoencoder import fve
from nla_jax.errors import NLAError


@pytest.fixture
def activations() -> np.ndarray:
  """Activations with a shared direction and very different norms, as residual streams have."""
  generator = np.random.default_rng(7)
  directions = generator.normal(size=(200, 16)) + 1.5 * np.eye(16)[0]
  return (directions * generator.lognormal(0, 2, size=(200, 1))).astype(np.float32)


def test_predicting_the_activations_gives_an_fve_of_one(activations):
  b = fve.baseline_variance(activations)
  assert fve.fve(fve.mse_nrm(activations, activations), b) == pytest.approx(1.0, abs=1e-9)


def test_predicting_the_activations_at_another_norm_is_as_good(activations):
  scales = np.linspace(0.01, 100, len(activations))[:, None]
  assert np.abs(fve.mse_nrm(activations * scales, activations)).max() < 1e-10


def test_b_is_the_error_of_the_best_constant(activations):
  """mu of the unit activations, left un-normalised, has FVE 0, and every other constant vector is worse."""
  units = fve.normalise(activations.astype(np.float64))
  mu = units.mean(axis=0)
  b = fve.baseline_variance(activations)

  def fve_of_constant(constant):
    return fve.fve(np.square(units - constant).sum(axis=-1), b)

  assert fve_of_constant(mu) == pytest.approx(0.0, abs=1e-12)
  assert fve_of_constant(mu / np.linalg.norm(mu)) < -0.1
  assert fve_of_constant(mu * 0.9) < 0 and fve_of_constant(mu * 1.1) < 0


def test_b_equals_the_published_formula_at_scale_sqrt_d(activations):
  scaled = activations / np.linalg.norm(activations, axis=-1, keepdims=True) * 4.0  # sqrt(16)
  assert fve.baseline_variance(activations) == pytest.approx(
    np.mean((scaled - scaled.mean(0)) ** 2), rel=1e-5
  )


def test_mse_nrm_is_two_times_one_minus_cosine_and_equals_the_published_mean_over_dims(activations):
  predictions = activations[::-1]
  mse = fve.mse_nrm(predictions, activations)
  np.testing.assert_allclose(mse, 2 * (1 - fve.cosine(predictions, activations)), atol=1e-5)
  scaled = np.mean(
    (fve.normalise(predictions, 4.0) - fve.normalise(activations, 4.0)) ** 2, axis=-1
  )
  np.testing.assert_allclose(mse, scaled, rtol=1e-5)


def test_mse_nrm_is_zero_two_and_four_for_same_orthogonal_and_opposite_directions():
  activation = np.array([[3.0, 0.0]] * 3)
  prediction = np.array([[0.1, 0.0], [0.0, 50.0], [-7.0, 0.0]])
  np.testing.assert_allclose(fve.mse_nrm(prediction, activation), [0, 2, 4], atol=1e-12)


def test_normalising_the_mean_inflates_fve(activations):
  b, inflated = fve.baseline_variance(activations), fve.baseline_variance_inflated(activations)
  assert inflated > 1.1 * b
  mse = fve.mse_nrm(activations + activations[::-1], activations)
  assert fve.fve_inflated(mse, activations) > fve.fve(mse, b)


def test_the_two_baselines_relate_as_published_for_qwen():
  """Both follow from ||mu|| alone, 1 - m^2 and 2 (1 - m): a corpus with b = 0.72 must show 0.94."""
  m = np.sqrt(1 - 0.72)
  activations = np.array([[m, np.sqrt(1 - m * m)], [m, -np.sqrt(1 - m * m)]])
  assert fve.baseline_variance(activations) == pytest.approx(0.72)
  assert fve.baseline_variance_inflated(activations) == pytest.approx(0.94, abs=0.005)


def test_a_zero_prediction_scores_one_and_has_a_finite_gradient():
  activation = jnp.array([1.0, 2.0, 2.0])
  value, gradient = jax.value_and_grad(lambda p: fve.mse_nrm(p, activation))(jnp.zeros(3))
  assert float(value) == pytest.approx(1.0)
  assert np.isfinite(gradient).all()


def test_traced_jax_agrees_with_numpy(activations):
  b = fve.baseline_variance(activations)
  traced = jax.jit(lambda p, g: fve.fve(fve.mse_nrm(p, g), b))(activations[::-1], activations)
  assert float(traced) == pytest.approx(
    float(fve.fve(fve.mse_nrm(activations[::-1], activations), b)), rel=1e-4
  )


def test_bfloat16_input_is_measured_in_float32(activations):
  rounded = activations.astype(ml_dtypes.bfloat16)
  assert fve.mse_nrm(rounded, activations).dtype == np.float32
  assert fve.normalise(jnp.asarray(rounded)).dtype == jnp.float32
  assert fve.mse_nrm(rounded, activations).max() < 1e-4


def test_per_activation_fve_averages_to_the_fve(activations):
  mse = fve.mse_nrm(activations[::-1], activations)
  assert fve.fve_per_activation(mse, 0.5).mean() == pytest.approx(fve.fve(mse, 0.5), rel=1e-5)


@pytest.mark.parametrize(
  "activations, words",
  [
    (np.ones((1, 4)), "2 or more"),
    (np.ones((5, 4)), "same way"),
    (np.array([[1.0, np.nan], [1.0, 0.0]]), "1 of 2 activations are not finite"),
  ],
)
def test_activations_without_a_baseline_are_refused(activations, words):
  with pytest.raises(NLAError, match=words):
    fve.baseline_variance(activations)


def test_the_cosine_of_a_mean_error_is_the_mean_cosine(activations):
  errors = fve.mse_nrm(activations[::-1], activations)
  cosines = fve.cosine(activations[::-1], activations)
  np.testing.assert_allclose(fve.cosine_of(errors), cosines, atol=1e-5)
  assert fve.cosine_of(errors.mean()) == pytest.approx(cosines.mean(), abs=1e-5)


def test_fve_takes_errors_or_their_mean_and_answers_in_kind():
  errors = np.array([0.2, 0.4], np.float32)
  assert fve.fve(errors, 0.6) == pytest.approx(0.5) and fve.fve(0.3, 0.6) == pytest.approx(0.5)
  assert isinstance(fve.fve(jnp.asarray(errors), 0.6), jax.Array)
  assert isinstance(fve.fve_per_activation(jnp.asarray(errors), 0.6), jax.Array)


@pytest.mark.parametrize("size", [3e38, 1e20, 1e-20, 1e-37])
@pytest.mark.parametrize("of", [np.asarray, jnp.asarray])
def test_a_direction_does_not_depend_on_a_finite_size(size, of):
  """Squares of such entries overflow or vanish in float32: a zero vector scored better than an orthogonal one."""
  generator = np.random.default_rng(0)
  units = generator.uniform(0.5, 1, (4, 16)).astype(np.float32)
  sized, others = units * np.float32(size), of(units[::-1].copy())
  np.testing.assert_allclose(fve.normalise(of(sized)), fve.normalise(of(units)), rtol=1e-6)
  np.testing.assert_allclose(
    fve.mse_nrm(of(sized), others), fve.mse_nrm(of(units), others), rtol=1e-4
  )
  np.testing.assert_allclose(
    fve.cosine(others, of(sized)), fve.cosine(others, of(units)), rtol=1e-5
  )


def test_float64_takes_sizes_of_its_own():
  np.testing.assert_allclose(fve.normalise(np.array([[3e300, 4e300]])), [[0.6, 0.8]])


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray])
def test_ordinary_sizes_keep_every_bit(activations, of):
  def plain(v):
    squares = (v * v).sum(axis=-1, keepdims=True)
    return v * (1.0 / (np if isinstance(v, np.ndarray) else jnp).sqrt(squares))

  np.testing.assert_array_equal(fve.normalise(of(activations)), plain(of(activations)))


def test_the_gradient_at_a_huge_prediction_is_finite():
  target = jnp.asarray(np.eye(1, 8), jnp.float32)
  huge = jnp.full((1, 8), 1e20, jnp.float32)
  gradient = jax.grad(lambda p: fve.mse_nrm(p, target).sum())(huge)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
