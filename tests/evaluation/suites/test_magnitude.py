"""The size of activations is fitted to explanations of training rows, and measured on held-out ones."""

import numpy as np
import pytest
from support.known_pair import ROWS, KnownNLA, vectors, write_store

from nla_jax.autoencoder import magnitude
from nla_jax.evaluation import harness
from nla_jax.evaluation.sizing import with_magnitude
from nla_jax.evaluation.subject import draw_subject


@pytest.fixture
def subject(tmp_path):
  return draw_subject(
    KnownNLA(), write_store(tmp_path / "store"), texts=None, before_rl=None, bootstrap_samples=50
  )


def test_it_is_fitted_to_training_rows_and_its_number_is_of_held_out_ones(subject, monkeypatch):
  monkeypatch.setattr(magnitude, "LEAST_ROWS", 8)
  sized = with_magnitude(subject, 20)
  assert subject.nla.magnitude is None and sized.nla.magnitude is not None
  explained, greedy = subject.nla.draws[-1]
  training = {row.tobytes() for row in vectors()[ROWS:]}
  assert len(explained) == 20 and not greedy
  assert all(row.tobytes() in training for row in explained)

  found = harness.measure(sized).metrics
  known = np.log(np.linalg.norm(sized.activations, axis=1))
  said = np.log(sized.nla.magnitude.norms(sized.rebuilt))
  expected = 1 - np.mean((said - known) ** 2) / known.var()
  assert found["magnitude_r2"]["value"] == pytest.approx(expected, rel=1e-4)
  low, high = found["magnitude_r2"]["ci95"]
  assert low <= expected <= high and found["magnitude_r2"]["n"] == ROWS

  # Everything else is as it is without.
  plain = harness.measure(subject).metrics
  assert "magnitude_r2" not in plain
  found.pop("magnitude_r2")
  assert found == plain


def test_nothing_is_explained_for_it_where_it_is_off_and_too_few_rows_leave_it_out(subject, capsys):
  assert with_magnitude(subject, 0) is subject and not subject.nla.draws
  assert with_magnitude(subject, 20) is subject
  assert "the pair stays without a size: 20 explanations" in capsys.readouterr().err
