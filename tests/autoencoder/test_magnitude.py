"""The size of an activation from its reconstruction: fitted in closed form, and carried by the pair."""

import json

import numpy as np
import pytest

from nla_jax.autoencoder import magnitude
from nla_jax.autoencoder.magnitude import Magnitude, fit, from_json, needed
from nla_jax.errors import NLAError

D = 12


def _rows(n, noise=0.0, seed=0):
  """Directions whose first two entries decide the log of the norm; every three rows are of one document."""
  random = np.random.default_rng(seed)
  rebuilt = random.normal(size=(n, D)) * random.uniform(0.1, 50, (n, 1))
  units = rebuilt / np.linalg.norm(rebuilt, axis=1, keepdims=True)
  logs = 4 + 2 * units[:, 0] - units[:, 1] + noise * random.normal(size=n)
  return rebuilt.astype(np.float32), np.exp(logs), np.arange(n) // 3


def _r2(found, rebuilt, norms):
  logs = np.log(norms)
  return 1 - np.mean((np.log(found.norms(rebuilt)) - logs) ** 2) / logs.var()


def test_what_is_linear_in_the_direction_is_found_whatever_the_norms_of_the_reconstructions():
  found = fit(*_rows(300))
  rebuilt, norms, _ = _rows(100, seed=1)
  assert _r2(found, rebuilt, norms) > 0.999
  np.testing.assert_allclose(found.norms(rebuilt * 7), found.norms(rebuilt), rtol=1e-5)

  # At full size a reconstruction keeps its direction and has the norm that is said.
  whole = found.full_size(rebuilt)
  np.testing.assert_allclose(np.linalg.norm(whole, axis=1), norms, rtol=0.02)
  lengths = np.linalg.norm(whole, axis=1) * np.linalg.norm(rebuilt, axis=1)
  np.testing.assert_allclose((whole * rebuilt).sum(1) / lengths, 1, atol=1e-5)


def test_noise_is_not_learned():
  """Fewer rows than numbers in a row, and nothing to find: the penalty leaves little but the mean."""
  random = np.random.default_rng(3)
  rebuilt, norms = random.normal(size=(40, 400)), np.exp(random.normal(size=40))
  found = fit(rebuilt, norms, np.arange(40))
  held = random.normal(size=(500, 400)), np.exp(random.normal(size=500))
  assert _r2(found, *held) > -0.3
  # Without the penalty all 40 rows would be repeated.
  assert _r2(found, rebuilt, norms) < 0.9


def test_the_penalty_is_chosen_by_documents_that_were_left_out():
  """Rows of one document share direction and size: beside its twin a row would seem predictable."""
  random = np.random.default_rng(4)
  rebuilt = np.repeat(random.normal(size=(20, 200)), 5, axis=0)
  rebuilt += 0.01 * random.normal(size=(100, 200))
  norms = np.repeat(np.exp(random.normal(size=20)), 5)
  by_document = fit(rebuilt, norms, np.repeat(np.arange(20), 5))
  by_row = fit(rebuilt, norms, np.arange(100))
  spread = [np.log(one.norms(rebuilt)).std() for one in (by_document, by_row)]
  assert spread[0] < spread[1]


@pytest.mark.parametrize(
  "rows",
  [
    _rows(magnitude.LEAST_ROWS - 1),
    (*_rows(60)[:2], np.zeros(60)),
    (_rows(60)[0], np.zeros(60), np.arange(60)),
  ],
)
def test_too_few_rows_or_groups_are_one_line(rows):
  with pytest.raises(NLAError, match="cannot say how large activations are") as caught:
    fit(*rows)
  assert "\n" not in str(caught.value)


def test_it_goes_through_json_as_it_is():
  found = fit(*_rows(60, noise=0.1))
  back = from_json(json.loads(json.dumps(found.to_json())))
  np.testing.assert_array_equal(back.weight, found.weight)
  assert back.bias == found.bias and from_json(None) is None


def test_a_pair_without_it_says_how_to_get_it():
  with pytest.raises(NLAError, match="magnitude_rows=512"):
    needed(None)
  assert needed(Magnitude(np.zeros(2, np.float32), 0.0)).bias == 0
