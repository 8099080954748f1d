"""Ordinary activations are near, others far; p-values are never 0, and alerts need enough benign transcripts."""

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.watching import reference


def drawn(n, seed=0, scale=(5.0, 1.0, 0.2, 0.1)):
  rows = np.random.default_rng(seed).normal(size=(n, 4)) * scale
  return np.concatenate([rows, np.full((n, 2), 3.0)], axis=1)


def fitted(*parts):
  sums = reference.nothing(6)
  for part in parts:
    sums = reference.add(sums, part)
  return reference.fit(sums)


def test_it_is_the_same_in_one_piece_and_in_several():
  rows = drawn(600)
  whole, pieces = fitted(rows), fitted(rows[:100], rows[100:101], rows[101:])
  others = drawn(20, 1)
  np.testing.assert_allclose(whole.novelty(others), pieces.novelty(others), rtol=1e-9)
  assert whole.tokens == pieces.tokens == 600


def test_ordinary_ones_are_at_one_and_a_rare_direction_is_far():
  found = fitted(drawn(4000))
  # A little below 1: each direction's variance is raised a little.
  assert 0.6 < np.mean(found.novelty(drawn(4000, 2)) ** 2) ** 0.5 < 1.05
  # The same step is nothing along the widest direction and much along the narrowest.
  plain = drawn(1, 3)
  wide, rare = plain + 2 * np.eye(6)[0], plain + 2 * np.eye(6)[3]
  assert found.novelty(rare)[0] > 1.2 * found.novelty(wide)[0]
  # Of an activation only the direction counts.
  np.testing.assert_allclose(found.novelty(drawn(9)), found.novelty(1e6 * drawn(9)), rtol=1e-6)


def test_it_is_kept_in_a_file_and_a_broken_one_is_named(tmp_path):
  found, path = fitted(drawn(50)), tmp_path / "reference.npz"
  found.save(path)
  np.testing.assert_array_equal(reference.load(path).novelty(drawn(5)), found.novelty(drawn(5)))
  path.write_bytes(b"nothing")
  with pytest.raises(NLAError, match=r"reference\.npz is no reference"):
    reference.load(path)


def test_p_values_and_how_many_benign_transcripts_an_alert_needs():
  ordinary = [0.0] * 18 + [0.5]
  assert reference.p_value(0.6, ordinary) == pytest.approx(1 / 20)
  assert reference.p_value(0.5, ordinary) == pytest.approx(2 / 20)
  assert reference.p_value(0.0, ordinary) == 1
  assert reference.fewest(0.05) == 19 and reference.fewest(0.01) == 99
  assert reference.p_value(1.0, [0.0] * reference.fewest(0.05)) <= 0.05
  with pytest.raises(NLAError, match="0 tokens"):
    reference.fit(reference.nothing(6))
