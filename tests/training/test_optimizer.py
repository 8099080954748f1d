"""The guard, the clip and the schedule, on a two-leaf model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nla_jax.config_section import optimizer as settings
from nla_jax.errors import NLAError
from nla_jax.training.optimizer import (
  check_guard,
  create_state,
  guarded_update,
  learning_rate,
  make_optimizer,
)

PARAMS = {"weight": jnp.array([[1.0, -2.0], [3.0, 4.0]]), "bias": jnp.array([0.5, 0.25])}
GRADS = {"weight": jnp.array([[0.1, 0.2], [-0.3, 0.4]]), "bias": jnp.array([-0.5, 0.6])}


def _spoiled(value):
  return {**GRADS, "bias": GRADS["bias"].at[1].set(value)}


def _equal(a, b):
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad):
  """3e38 is finite, but its norm is not."""
  optimizer = make_optimizer(settings(warmup=0, lr=0.1), 100)
  step = jax.jit(lambda state, grads: guarded_update(state, grads, optimizer, 1.0))
  state, _ = step(create_state(PARAMS, optimizer), GRADS)
  after, norm = step(state, _spoiled(bad))
  assert not np.isfinite(norm)
  assert _equal((after.params, after.opt_state), (state.params, state.opt_state))
  assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 1, 1)
  again, _ = step(after, _spoiled(bad))
  assert (int(again.skipped), int(again.skipped_in_a_row)) == (2, 2)
  good, _ = step(again, GRADS)
  assert (int(good.step), int(good.skipped), int(good.skipped_in_a_row)) == (4, 2, 0)
  assert not _equal(good.params, state.params)


@pytest.mark.parametrize(("bound", "skipped"), [(0.0, 0), (2.0, 0), (0.5, 1)])
def test_an_exploded_gradient_is_skipped_and_counted(bound, skipped):
  """The norm is 0.955; a bound of 0 is none."""
  optimizer = make_optimizer(settings(warmup=0), 100)
  before = create_state(PARAMS, optimizer)
  state, norm = guarded_update(before, GRADS, optimizer, 1.0, bound)
  assert float(norm) == pytest.approx(0.9539, rel=1e-3)
  assert int(state.skipped) == skipped and _equal(state.params, before.params) == bool(skipped)


def test_a_run_stops_after_too_many_skipped_updates_in_a_row():
  optimizer = make_optimizer(settings(warmup=0), 100)
  state = create_state(PARAMS, optimizer)
  for _ in range(2):
    state, _ = guarded_update(state, _spoiled(np.nan), optimizer, 1.0)
  check_guard(state, 3, "ar")
  with pytest.raises(
    NLAError, match="ar: 2 updates in a row had non-finite or exploded gradients at step 2"
  ):
    check_guard(state, 2, "ar")


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_gradients_are_clipped_to_the_global_norm(scale):
  optimizer = optax.sgd(1.0)
  grads = jax.tree.map(lambda g: g * scale, GRADS)
  state, norm = guarded_update(create_state(PARAMS, optimizer), grads, optimizer, 1.0)
  length = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
  assert float(norm) == pytest.approx(length, rel=1e-5)
  moved = jax.tree.map(lambda before, after: before - after, PARAMS, state.params)
  expected = jax.tree.map(lambda g: g * min(1.0, 1.0 / length), grads)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moved, expected)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_schedule_is_the_rate_that_parameters_move_at(schedule):
  """Under a gradient that never changes, Adam's step is the learning rate in every coordinate."""
  chosen = settings(schedule=schedule, lr=0.01, lr_end=0.001, warmup=3)
  rates, optimizer = learning_rate(chosen, 12), make_optimizer(chosen, 12)
  step = jax.jit(lambda state: guarded_update(state, GRADS, optimizer, 1e9)[0])
  state, moved = create_state(PARAMS, optimizer), []
  for _ in range(12):
    after = step(state)
    moved.append(float(state.params["bias"][0] - after.params["bias"][0]) / -1.0)
    state = after
  np.testing.assert_allclose(moved, [float(rates(i)) for i in range(12)], rtol=2e-3)
  assert moved[0] < moved[1] < moved[2] and max(moved) == pytest.approx(0.01, rel=2e-3)
  assert (
    moved[-1] == pytest.approx(0.01, rel=2e-3) if schedule == "constant" else moved[-1] < 0.0015
  )


def test_an_unknown_schedule_is_refused():
  with pytest.raises(NLAError, match="schedule 'linear' is not known; use cosine or constant"):
    make_optimizer(settings(schedule="linear"), 10)


def test_small_rates_move_the_masters():
  """A rate of 1e-5 is below bfloat16's resolution at 1; the masters are float32."""
  optimizer = make_optimizer(settings(schedule="constant", lr=1e-5, warmup=0), 100)
  state, _ = guarded_update(create_state(PARAMS, optimizer), GRADS, optimizer, 1.0)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
  for before, after in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(state.params)):
    np.testing.assert_allclose(np.abs(before - after), 1e-5, rtol=0.05)
