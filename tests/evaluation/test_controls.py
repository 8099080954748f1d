"""Controls stand for answers that know nothing of the row they are scored on."""

import numpy as np

from nla_jax.evaluation import controls


def test_another_row_is_of_another_group_and_each_row_serves_once():
  groups = np.array(["a"] * 5 + ["b"] * 4 + ["c"] * 3)
  other = controls.other_rows(len(groups), groups, seed=0)
  assert sorted(other) == list(range(len(groups)))
  assert np.all(groups[other] != groups)


def test_no_row_is_its_own_other_even_where_one_group_is_most_of_all():
  groups = np.array(["a"] * 9 + ["b"])
  assert np.all(controls.other_rows(10, groups, seed=1) != np.arange(10))


def test_the_nearest_row_is_nearest_in_direction_not_in_distance():
  training = np.array([[10.0, 0.0], [0.6, 0.8]])
  assert controls.nearest_rows(np.array([[0.5, 0.1], [0.0, 9.0]]), training).tolist() == [0, 1]


def test_the_mean_per_last_token_is_of_directions_and_falls_back_to_the_mean_of_all():
  training = np.array([[2.0, 0.0], [0.0, 4.0], [0.0, 1.0]])
  found = controls.mean_per_last_token(training, np.array([7, 7, 9]), np.array([7, 9, 8]))
  np.testing.assert_allclose(found, [[0.5, 0.5], [0.0, 1.0], [1 / 3, 2 / 3]], atol=1e-6)
