"""The AV reads its vector at the slot and nowhere else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.models.parameters import lower_params
from nla_jax.models.transformer import Transformer
from nla_jax.models.verbalizer import InjectionMap, Verbalizer, verbalizer_params

SCALE = 5.0
BEFORE, AFTER = np.array([7, 8, 9, 10, 11], np.int32), np.array([42, 3, 4, 5], np.int32)
RESPONSE = np.random.default_rng(0).integers(0, 300, (3, 6)).astype(np.int32)


@pytest.fixture(scope="module")
def vectors(tiny_architecture):
  return (
    np.random.default_rng(1).normal(size=(3, tiny_architecture.d_model)).astype(np.float32) * 20
  )


def _injected(vectors):
  return SCALE * vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, *arguments):
  return model.apply({"params": params}, *arguments)


def _run(architecture, params, vectors, response=RESPONSE, **options):
  return _apply(
    Verbalizer(architecture, SCALE, **options), params, BEFORE, AFTER, vectors, response
  )


@pytest.mark.parametrize("embedding_scale", [1.0, 6.0])
def test_the_vector_replaces_the_slots_embedding_and_nothing_else(
  tiny_architecture, tiny_params, vectors, relative_error, embedding_scale
):
  """Equal to a plain model whose vocabulary has each vector as a further word, unscaled, in the slot's place."""
  architecture = dataclasses.replace(tiny_architecture, embedding_scale=embedding_scale)
  found = _run(architecture, verbalizer_params(tiny_params, 32, "scalar"), vectors)
  words = _injected(vectors) / embedding_scale
  larger = {**tiny_params, "embedding": jnp.concatenate([tiny_params["embedding"], words])}
  larger["unembedding"] = larger["embedding"]
  prompt = np.tile(np.concatenate([BEFORE, AFTER]), (3, 1))
  prompt[:, len(BEFORE)] = 300 + np.arange(3)
  rows = np.concatenate([prompt, RESPONSE[:, :-1]], axis=1)
  plain = _apply(
    Transformer(dataclasses.replace(architecture, vocab_size=303)), larger, rows
  ).hidden
  assert relative_error(found, plain[:, prompt.shape[1] - 1 :]) < 1e-5


def test_the_token_at_the_slot_does_not_matter(tiny_architecture, tiny_params, vectors):
  params, other = verbalizer_params(tiny_params, 32, "scalar"), AFTER.copy()
  other[0] = 77
  model = Verbalizer(tiny_architecture, SCALE)
  run = lambda after: _apply(model, params, BEFORE, after, vectors, RESPONSE)
  np.testing.assert_array_equal(run(AFTER), run(other))


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_shuffled_vectors_give_shuffled_states_where_the_answers_are_alike(
  tiny_architecture, tiny_params, vectors, relative_error, mode
):
  params, alike = verbalizer_params(tiny_params, 32, "scalar"), np.tile(RESPONSE[:1], (3, 1))
  own = _run(tiny_architecture, params, vectors, alike, inject_mode=mode)
  shuffled = _run(tiny_architecture, params, vectors[[1, 2, 0]], alike, inject_mode=mode)
  assert relative_error(shuffled, own[np.array([1, 2, 0])]) < 1e-5
  assert relative_error(shuffled, own) > 0.01


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_only_the_direction_of_a_vector_counts(
  tiny_architecture, tiny_params, vectors, relative_error, mode
):
  params = verbalizer_params(tiny_params, 32, "scalar")
  run = lambda v: _run(tiny_architecture, params, v, inject_mode=mode)
  assert relative_error(run(vectors * 1000), run(vectors)) < 1e-5
  assert relative_error(run(-vectors), run(vectors)) > 0.01


def test_zero_stays_zero_and_the_rest_gets_the_norm_alpha(vectors):
  with_zero = np.concatenate([vectors, np.zeros((1, 32), np.float32)])
  out = InjectionMap(SCALE, affine=False).apply({}, with_zero)
  np.testing.assert_array_equal(out[-1], 0)
  np.testing.assert_allclose(np.linalg.norm(out[:-1], axis=-1), SCALE, rtol=1e-5)


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_a_fresh_affine_map_is_the_scalar_one(
  tiny_architecture, tiny_params, vectors, relative_error, mode
):
  scalar = _run(
    tiny_architecture, verbalizer_params(tiny_params, 32, "scalar"), vectors, inject_mode=mode
  )
  params = verbalizer_params(tiny_params, 32, "affine")
  affine = _run(tiny_architecture, params, vectors, inject_mode=mode, inject_map="affine")
  assert relative_error(affine, scalar) < 1e-5
  moved = {
    **params,
    "injection": {**params["injection"], "matrix": jnp.roll(jnp.eye(32), 1, axis=1)},
  }
  rolled = _run(
    tiny_architecture,
    verbalizer_params(tiny_params, 32, "scalar"),
    np.roll(vectors, 1, axis=1),
    inject_mode=mode,
  )
  assert (
    relative_error(
      _run(tiny_architecture, moved, vectors, inject_mode=mode, inject_map="affine"), rolled
    )
    < 1e-5
  )


def test_add_is_norm_matched_after_block_1(tiny_architecture, tiny_params, vectors, relative_error):
  """Literally: blocks 0 and 1, the sum at the slot, then a model of the blocks above whose embedding is that sum."""
  params = verbalizer_params(tiny_params, 32, "scalar")
  found = _run(tiny_architecture, params, vectors, inject_mode="add")
  rows = np.concatenate(
    [np.tile(np.concatenate([BEFORE, AFTER]), (3, 1)), RESPONSE[:, :-1]], axis=1
  )
  stream = np.array(
    _apply(Transformer(tiny_architecture, 1), lower_params(tiny_params, 2), rows).hidden
  )
  slot = len(BEFORE)
  directions = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
  stream[:, slot] += directions * np.linalg.norm(stream[:, slot], axis=-1, keepdims=True)
  upper = jax.tree.map(lambda leaf: leaf[2:], tiny_params["layers"])
  above = {
    **tiny_params,
    "embedding": stream.reshape(-1, 32),
    "layers": upper,
    "unembedding": stream.reshape(-1, 32),
  }
  rest = dataclasses.replace(tiny_architecture, n_layers=2, vocab_size=rows.size)
  hidden = _apply(Transformer(rest), above, np.arange(rows.size).reshape(rows.shape)).hidden
  assert relative_error(found, hidden[:, slot + len(AFTER) - 1 :]) < 1e-5


@pytest.mark.parametrize("size", [3e37, 1e20, 1e-30])
def test_a_vector_of_any_finite_size_is_injected_with_the_norm_alpha(vectors, size):
  inject = InjectionMap(SCALE, affine=False)
  units = vectors / np.abs(vectors).max()
  found = inject.apply({}, units * np.float32(size))
  np.testing.assert_allclose(found, inject.apply({}, units), rtol=1e-5)
