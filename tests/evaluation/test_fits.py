"""What is fitted is fitted once, kept with what it was made from, and not taken from something else."""

from types import SimpleNamespace

import numpy as np
import pytest

from nla_jax.evaluation import fits


@pytest.fixture
def subject_of(tmp_path):
  def subject_of(content="a", folder=tmp_path):
    store = SimpleNamespace(manifest={"content_hash": content})
    nla = SimpleNamespace(pair=SimpleNamespace(layer=3))
    return SimpleNamespace(kept={}, folder=folder, store=store, nla=nla, seed=0)

  return subject_of


def test_a_fit_is_made_once_and_of_this_store_and_request_alone(subject_of):
  made = []

  def fit():
    made.append(1)
    return {"matrix": np.full((2, 2), len(made), np.float32)}

  def fitted(subject, **request):
    return fits.fitted(subject, "lens", request, fit)["matrix"][0, 0]

  subject = subject_of()
  assert fitted(subject, steps=5) == fitted(subject, steps=5) == 1
  assert fitted(subject_of(), steps=5) == 1  # from the disk
  assert fitted(subject_of(), steps=6) == 2
  assert fitted(subject_of("b"), steps=6) == 3
  # Without a folder it is kept by the subject alone.
  alone = subject_of(folder=None)
  assert fitted(alone, steps=6) == fitted(alone, steps=6) == 4


def test_a_file_that_is_damaged_is_none(tmp_path):
  file, origin = tmp_path / "lens.npz", {"layer": 3}
  fits.write(file, origin, {"matrix": np.eye(2)})
  np.testing.assert_array_equal(fits.read(file, origin)["matrix"], np.eye(2))
  content = file.read_bytes()
  for damaged in (b"", content[: len(content) // 2], b"no archive"):
    file.write_bytes(damaged)
    assert fits.read(file, origin) is None


def test_a_training_goes_on_from_what_was_saved(tmp_path):
  file, state = tmp_path / "state.npz", {"a": np.arange(3), "b": (np.ones(2),)}
  assert fits.restored(None, {}, state) == (state, 0)
  fits.save(file, {"x": 1}, state, 7)
  found, done = fits.restored(file, {"x": 1}, {"a": np.zeros(3), "b": (np.zeros(2),)})
  assert done == 7
  np.testing.assert_array_equal(found["a"], state["a"])
  np.testing.assert_array_equal(found["b"][0], state["b"][0])
