"""Looking up finds the nearest direction."""

import numpy as np

from nla_jax.evaluation.suites.baselines.retrieval import nearest_rows


def test_the_nearest_row_is_nearest_in_direction_not_in_distance():
  training = np.array([[10.0, 0.0], [0.6, 0.8]])
  assert nearest_rows(np.array([[0.5, 0.1], [0.0, 9.0]]), training).tolist() == [0, 1]
