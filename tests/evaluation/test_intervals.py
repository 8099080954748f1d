"""An interval covers what it should, and rows of one document do not count as independent."""

import json

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation import intervals


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


@pytest.mark.parametrize("groups", [2, 3, 7])
def test_of_few_documents_the_interval_is_wide_enough(groups):
  """A percentile bootstrap holds the truth 51, 74 and 87 times in 100."""
  generator = np.random.default_rng(groups)
  hits = 0
  for _ in range(400):
    mse, of = clustered(generator, groups, 5, 0.1, 0.1)
    low, high = intervals.bootstrap(mse, of, 1.0).ci95
    hits += low <= 0.5 <= high
  assert 366 <= hits <= 393


def test_a_paired_interval_of_few_documents_is_of_their_differences():
  """Two groups whose differences are 0.1 and 0.3: 0.2 and 12.7 times their standard error of 0.1 around it."""
  before, groups = np.array([0.4, 0.4, 0.9, 0.9]), np.array([0, 0, 1, 1])
  found = intervals.paired_bootstrap(before - [0.1, 0.1, 0.3, 0.3], before, groups, 1.0)
  assert found.value == pytest.approx(0.2)
  assert found.ci95 == pytest.approx((0.2 - 12.7062 * 0.1, 0.2 + 12.7062 * 0.1))


def test_an_interval_of_few_documents_stays_where_an_fve_can_be():
  found = intervals.bootstrap(np.array([0.1, 0.5]), np.array([0, 1]), 1.0)
  assert found.ci95[1] == 1.0 and found.ci95[0] < 0


def test_a_share_over_few_documents_has_an_interval_only_where_there_is_something_to_keep():
  groups = np.repeat(np.arange(4), 3)
  before = np.full(12, 0.2) + 0.01 * groups
  found = intervals.paired_retention((before + 1.0) / 2, before, groups, 1.0)
  assert found.value == pytest.approx(0.5) and found.ci95 == pytest.approx((0.5, 0.5))
  wild = np.array([0.0, 1.1, 0.9, 0.1])[groups]
  assert intervals.paired_retention((wild + 1.0) / 2, wild, groups, 1.0).ci95 is None


def test_one_document_gives_no_interval_rather_than_a_false_one():
  estimate = intervals.bootstrap(np.array([0.1, 0.2]), np.array([9, 9]), 1.0)
  assert estimate.ci95 is None
  assert json.loads(json.dumps(estimate.to_dict())) == {
    "value": pytest.approx(0.85),
    "ci95": None,
    "n": 2,
  }


def test_what_cannot_be_averaged_is_refused():
  with pytest.raises(NLAError, match="1 of 2 values are not finite"):
    intervals.bootstrap(np.array([0.1, np.nan]), np.array([0, 1]), 1.0)
  with pytest.raises(NLAError, match="one group for each"):
    intervals.bootstrap(np.array([0.1, 0.2]), np.array([0]), 1.0)
  with pytest.raises(NLAError, match="same rows"):
    intervals.paired_bootstrap(np.zeros(2), np.zeros(3), np.zeros(2), 1.0)
  with pytest.raises(NLAError, match="positive"):
    intervals.bootstrap(np.zeros(2), np.arange(2), 0.0)


def test_retention_is_a_share_whose_interval_is_paired():
  """Half of each row's FVE is kept, so the share is the same in every draw, however much rows differ."""
  before, groups = clustered(np.random.default_rng(4), 30, 4, 0.1, 0.1)
  before = np.clip(before, 0.0, 0.9)
  found = intervals.paired_retention((before + 1.0) / 2, before, groups, 1.0, samples=200)
  assert found.value == pytest.approx(0.5) and found.ci95 == pytest.approx((0.5, 0.5))

  # The errors of other rows have the same mean and lose the pairing: the interval opens.
  moved = np.roll((before + 1.0) / 2, 17)
  apart = intervals.paired_retention(moved, before, groups, 1.0, samples=200)
  assert apart.value == pytest.approx(0.5) and apart.ci95[1] - apart.ci95[0] > 0.02


def test_a_share_of_nothing_is_no_number_and_one_of_little_has_no_interval():
  groups = np.arange(8)
  assert intervals.paired_retention(np.ones(8), np.full(8, 1.1), groups, 1.0) is None
  little = np.array([0.2, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.0])
  found = intervals.paired_retention(np.ones(8), little, groups, 1.0, samples=200)
  assert found.value == pytest.approx(0) and found.ci95 is None


@pytest.mark.parametrize(
  ("hits", "n", "low", "high"),
  [(0, 10, 0.0, 0.2775), (9, 10, 0.5958, 0.9821), (10, 10, 0.7225, 1.0)],
)
def test_a_share_has_wilsons_interval(hits, n, low, high):
  found = intervals.share([True] * hits + [False] * (n - hits))
  assert (found.value, found.n) == (hits / n, n)
  assert found.ci95 == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_nothing_is_refused():
  with pytest.raises(NLAError, match="at least one trial"):
    intervals.share([])
