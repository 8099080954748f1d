"""The AR before RL reads what the AV after RL writes."""

import numpy as np
import pytest
from support.known_pair import ROWS, KnownNLA, vectors, write_store

from nla_jax.autoencoder import fve
from nla_jax.evaluation import harness


@pytest.fixture
def store(tmp_path):
  return write_store(tmp_path / "store")


def found(store, nla, before):
  return harness.evaluate(nla, store, before_rl=before, bootstrap_samples=50).metrics["fve"]


def test_the_trained_avs_texts_are_read_by_the_ar_before_rl(store):
  """The AR before RL knows each name as the activation one lower, so each row scores what its neighbour would."""
  nla, before = KnownNLA(), KnownNLA(ar="one lower")
  report = harness.evaluate(nla, store, before_rl=before, bootstrap_samples=50)
  lower = np.concatenate([np.eye(8)[:1], vectors()[: ROWS - 1]])[report.rows]
  errors = fve.mse_nrm(lower, vectors()[report.rows])
  expected = fve.fve(errors, report.metrics["baseline_variance"])
  assert report.metrics["fve"]["fixed_critic"]["value"] == pytest.approx(expected, rel=1e-5)
  assert report.metrics["fve"]["round_trip"]["value"] == pytest.approx(1, abs=1e-6)


def test_a_gain_that_only_the_trained_ar_reads_is_none_under_the_fixed_one(store):
  """The AV's words did not change; the AR after RL reads them, the one before does not."""
  private = found(store, KnownNLA(), KnownNLA(ar="one lower"))
  assert private["gain_of_rl"]["value"] > 0.5
  assert private["gain_of_rl_fixed"]["value"] == pytest.approx(0, abs=1e-9)


def test_a_gain_of_words_is_seen_by_both(store):
  """Before RL half of the AV's answers did not parse."""
  before = KnownNLA(silent=[str(i) for i in range(0, ROWS, 2)], ar="any")
  shared = found(store, KnownNLA(), before)
  assert shared["gain_of_rl_fixed"]["value"] == pytest.approx(shared["gain_of_rl"]["value"])
  assert shared["gain_of_rl_fixed"]["ci95"][0] > 0


def test_without_another_ar_nothing_is_said(store):
  for before in (None, KnownNLA()):
    keys = found(store, KnownNLA(), before).keys()
    assert not [key for key in keys if "fixed" in key]
