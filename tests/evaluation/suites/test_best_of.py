"""The best of n is chosen by the live AR, and an AR that did not choose scores the same texts."""

import numpy as np
import pytest
from support.known_pair import ROWS, KnownNLA, write_store

from nla_jax.autoencoder import fve
from nla_jax.evaluation import harness
from nla_jax.evaluation.suites.best_of import sizes

MOST, USED = 4, 12  # explanations of each row, and rows


class Unlucky(KnownNLA):
  """Its first draw names nothing; of the others of row i, number i modulo 3 names the activation."""

  def sample_explanations(self, params, given, key, *, batch, greedy, on_batch):
    texts, lengths = super().sample_explanations(
      params, given, key, batch=batch, greedy=greedy, on_batch=on_batch
    )
    if len(given) == ROWS and not greedy:
      return ["99"] * ROWS, lengths
    if len(given) == USED * (MOST - 1):
      lucky = lambda i: i % (MOST - 1) == i // (MOST - 1) % (MOST - 1)
      texts = [text if lucky(i) else "99" for i, text in enumerate(texts)]
    return texts, lengths


@pytest.fixture
def report(tmp_path):
  store = write_store(tmp_path / "store")
  before = KnownNLA(ar="one lower")
  return harness.evaluate(
    Unlucky(), store, before_rl=before, bootstrap_samples=50, best_of=MOST, best_of_rows=USED
  )


def test_each_n_has_the_best_of_the_first_n(report):
  by_n = report.metrics["by_n"]
  assert list(by_n) == ["1", "2", "4"] and by_n["4"]["rows"] == USED

  # With 2 explanations every third row is named, with 4 every row is.
  errors = fve.mse_nrm(np.eye(8)[:1], KnownNLA().units[report.rows[:USED]])
  for n, named in ((1, []), (2, [0, 3, 6, 9]), (4, range(USED))):
    expected = errors.copy()
    expected[list(named)] = 0
    value = fve.fve(expected, report.metrics["baseline_variance"])
    assert by_n[str(n)]["fve"]["best_of"]["value"] == pytest.approx(value, abs=1e-5)


def test_the_fixed_ar_scores_what_the_live_one_chose(report):
  """It knows the names as other activations, so choosing right gains nothing under it."""
  by_n, rows = report.metrics["by_n"], report.rows[:USED]
  units = KnownNLA().units
  lower = np.concatenate([np.eye(8)[:1], units[:-1]])[rows]
  value = fve.fve(fve.mse_nrm(lower, units[rows]), report.metrics["baseline_variance"])
  assert by_n["4"]["fve"]["best_of_fixed"]["value"] == pytest.approx(value, rel=1e-4)
  assert by_n["4"]["fve"]["best_of"]["value"] == pytest.approx(1, abs=1e-5)


def test_it_is_off_unless_asked_for_and_draws_nothing_then(tmp_path):
  nla = KnownNLA()
  found = harness.evaluate(nla, write_store(tmp_path / "store"), bootstrap_samples=20)
  assert "by_n" not in found.metrics and len(nla.draws) == 4


def test_n_doubles_up_to_what_is_asked_for():
  assert sizes(8) == [1, 2, 4, 8] and sizes(6) == [1, 2, 4, 6] and sizes(2) == [1, 2]
