"""The answer by last token is a mean of directions."""

import numpy as np

from nla_jax.evaluation.suites.baselines.last_token import mean_per_last_token


def test_the_mean_per_last_token_is_of_directions_and_falls_back_to_the_mean_of_all():
  training = np.array([[2.0, 0.0], [0.0, 4.0], [0.0, 1.0]])
  found = mean_per_last_token(training, np.array([7, 7, 9]), np.array([7, 9, 8]))
  np.testing.assert_allclose(found, [[0.5, 0.5], [0.0, 1.0], [1 / 3, 2 / 3]], atol=1e-6)
