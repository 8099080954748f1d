"""A sparse autoencoder against ten lines of numpy; one that is trained finds planted features, and can be stopped."""

import numpy as np
import pytest

from nla_jax.evaluation.sae import features, train
from nla_jax.evaluation.sae.autoencoder import SAE, Kind

D, M = 12, 40


def random_sae(kind, seed=0):
  random = np.random.default_rng(seed)
  shapes = ((D, M), (M,), (M, D), (D,))
  arrays = [random.normal(size=shape).astype(np.float32) for shape in shapes]
  return SAE(kind, *arrays, np.abs(random.normal(size=M)).astype(np.float32))


def reference(sae, x):
  """The latents and what is rebuilt, as the published code computes them."""
  kind, w_enc, b_enc, w_dec, b_dec, threshold = sae
  shift, scale = 0.0, 1.0
  if kind.scaling == "constant_norm_rescale":
    scale = np.linalg.norm(x, axis=1, keepdims=True) / np.sqrt(D)
  if kind.scaling == "layer_norm":
    shift = x.mean(axis=1, keepdims=True)
    scale = x.std(axis=1, keepdims=True, ddof=1) + 1e-5
  lengths = np.linalg.norm(w_dec, axis=1) if kind.by_decoder else 1.0
  z = (((x - shift) / scale - kind.minus_bias * b_dec) @ w_enc + b_enc) * lengths
  if kind.activation == "top_k":
    z[z < np.sort(z, axis=1)[:, -kind.k, None]] = 0
  z = np.where(z > (threshold if kind.activation == "jump_relu" else 0), z, 0)
  return z, ((z / lengths) @ w_dec + b_dec) * scale + shift


@pytest.mark.parametrize(
  "kind",
  [
    Kind("relu"),
    Kind("relu", minus_bias=True, scaling="layer_norm"),
    Kind("jump_relu"),
    Kind("top_k", 5, minus_bias=True, scaling="constant_norm_rescale"),
    Kind("top_k", 30, by_decoder=True),
  ],
)
def test_every_kind_computes_what_ten_lines_of_numpy_do(kind):
  sae = random_sae(kind)
  x = 5 * np.random.default_rng(1).normal(size=(7, D)).astype(np.float32)
  latents, rebuilt = reference(sae, x)
  np.testing.assert_allclose(sae.encode(x), latents, rtol=2e-4, atol=2e-4)
  np.testing.assert_allclose(sae.reconstruct(x), rebuilt, rtol=2e-4, atol=2e-3)
  assert 0 < (latents > 0).sum(axis=1).max() <= (kind.k or M)


def planted(n, seed=0):
  """Activations that are sums of three of 24 directions, around a mean."""
  random = np.random.default_rng(seed)
  features = np.random.default_rng(99).normal(size=(24, 32))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  on = np.argsort(random.random((n, 24)), axis=1)[:, :3]
  strength = random.uniform(1, 2, size=(n, 3))
  rows = np.einsum("nk,nkd->nd", strength, features[on]) + 0.5
  return rows.astype(np.float32), features


SIZE = train.Size(latents=64, k=3, steps=1000, batch=128)


def test_what_is_trained_finds_planted_features():
  rows, features = planted(2000)
  sae = train.train(rows, SIZE)
  held, _ = planted(200, seed=1)
  latents = sae.encode(held)
  assert (latents > 0).sum(axis=1).max() <= SIZE.k
  left = ((held - sae.reconstruct(held)) ** 2).sum() / ((held - held.mean(axis=0)) ** 2).sum()
  assert left < 0.25
  # The best latent of most features points where the feature does.
  cosines = (sae.w_dec @ features.T).max(axis=0)
  assert np.median(cosines) > 0.9
  np.testing.assert_allclose(np.linalg.norm(sae.w_dec, axis=1), 1, rtol=1e-4)


def test_a_training_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
  rows, _ = planted(500)
  size = SIZE._replace(steps=24)
  whole = train.train(rows, size)

  class KilledError(Exception):
    pass

  taken, step = [], train._step

  def stopping(*args, **options):
    if len(taken) == 10:
      raise KilledError
    taken.append(1)
    return step(*args, **options)

  monkeypatch.setattr(train, "_SAVE_SECONDS", -1)
  monkeypatch.setattr(train, "_step", stopping)
  file = tmp_path / "sae.npz"
  with pytest.raises(KilledError):
    train.train(rows, size, file, {"store": "a"})
  # What lies there of another store is not gone on with.
  taken[:] = [0] * 11
  again = train.train(rows, size, file, {"store": "a"})
  assert len(taken) == 11 + 14
  for name in ("w_enc", "w_dec", "b_enc", "b_dec"):
    np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
  train.train(rows, size, file, {"store": "b"})
  assert len(taken) == 11 + 14 + 24


def test_latents_that_are_dead_are_brought_back():
  rows, _ = planted(1000)
  state = train._start(rows, SIZE)
  # Nothing could ever switch the second half on.
  state.params["b_enc"][32:] = -1e3
  state.silent[32:] = SIZE.dead_after + 1
  moved = train._step(state, rows[:128], 1.0, size=SIZE)
  assert np.all(np.asarray(moved.silent[32:]) == SIZE.dead_after + 2)
  state.params["b_enc"][32:] = 0
  state.params["w_enc"][:, 32:] *= 1e-3
  back = train._step(state, rows[:128], 1.0, size=SIZE)
  gained = np.abs(np.asarray(back.params["w_enc"][:, 32:]) - state.params["w_enc"][:, 32:])
  assert np.mean(gained > 0) > 0.9


def test_features_are_known_by_the_rows_that_switch_them_on_most():
  rows, _ = planted(3000)
  sae = random_sae(Kind("relu"))._replace(
    w_enc=np.eye(32, 40, dtype=np.float32), b_enc=np.zeros(40)
  )
  documents = np.arange(3000) // 5
  found = features.over(sae, rows, documents)
  latents = np.maximum(rows @ sae.w_enc, 0)
  np.testing.assert_allclose(found.shares, (latents > 0).mean(axis=0))
  assert found.dead == 8 and np.all(found.rows[32:] == -1)
  for j in range(32):
    # The best row of each document, and of these the best two.
    best = latents[:, j].reshape(-1, 5)
    order = np.argsort(-best.max(axis=1))[:2]
    np.testing.assert_array_equal(found.rows[j], order * 5 + best[order].argmax(axis=1))


def test_the_strongest_features_are_told_by_their_contexts_and_common_ones_are_not():
  known = features.Features(
    np.array([[3, 1], [0, 2], [2, -1], [-1, -1]]), np.array([0.5, 0.01, 0.02, 0])
  )
  latents = np.array([[9, 1, 2, 7], [9, 0, 0, 0]], np.float32)
  assert features.strongest(known, latents) == [[2, 1], []]
  contexts = ["zero", "one", "two", "three"]
  assert features.texts(known, latents, contexts) == ["two\nzero / two", ""]
  assert features.texts(known, latents, contexts, 1) == ["two", ""]
