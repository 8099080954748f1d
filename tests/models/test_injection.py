"""One mechanism puts vectors into the residual stream: at the embedding, after a block, replaced or added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.models.injection import ADD, EMBEDDING, REPLACE, Injection
from nla_jax.models.transformer import Transformer

ROWS, LENGTH = 3, 7


@pytest.fixture(scope="module")
def given(tiny_architecture, tiny_params):
  random = np.random.default_rng(0)
  tokens = jnp.asarray(random.integers(0, 300, (ROWS, LENGTH)), jnp.int32)
  vectors = jnp.asarray(random.normal(size=(ROWS, 32)), jnp.float32)
  return tiny_architecture, tiny_params, tokens, vectors


def _residuals(given, injection):
  """Outputs of all blocks, [blocks, batch, length, d]."""
  architecture, params, tokens, _ = given
  model = Transformer(architecture, collect=tuple(range(architecture.n_layers)))
  return np.asarray(model.apply({"params": params}, tokens, injection=injection).residuals)


def _slot(*positions: int):
  slot = np.zeros((ROWS, LENGTH), bool)
  slot[:, list(positions)] = True
  return jnp.asarray(slot)


@pytest.mark.parametrize("block", [0, 1])
def test_a_vector_replaces_the_output_of_its_block_at_its_slots_alone(given, block):
  vectors = given[3]
  plain = _residuals(given, None)
  found = _residuals(given, Injection(_slot(2, 4), vectors, after=block, mode=REPLACE))
  np.testing.assert_array_equal(found[:block], plain[:block])
  np.testing.assert_array_equal(found[block][:, [0, 1, 3, 5, 6]], plain[block][:, [0, 1, 3, 5, 6]])
  np.testing.assert_array_equal(found[block][:, 2], vectors)
  np.testing.assert_array_equal(found[block][:, 4], vectors)


def test_what_is_added_is_strength_times_the_residuals_length_along_the_vector(given):
  vectors, strength = given[3], jnp.array([0.5, 2.0, -1.0])
  plain = _residuals(given, None)[1]
  found = _residuals(given, Injection(_slot(3), vectors, strength, after=1, mode=ADD))[1]
  added = found[:, 3] - plain[:, 3]
  units = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
  lengths = jnp.linalg.norm(plain[:, 3], axis=1, keepdims=True)
  np.testing.assert_allclose(added, strength[:, None] * lengths * units, atol=1e-5)


def test_without_a_strength_as_much_is_added_as_there_is(given):
  injection = Injection(_slot(3), given[3], after=1, mode=ADD)
  ones = injection.replace(strength=jnp.ones(ROWS))
  np.testing.assert_allclose(_residuals(given, injection), _residuals(given, ones), atol=1e-6)


def test_only_later_positions_feel_an_injection(given):
  plain = _residuals(given, None)
  for after in (EMBEDDING, 1):
    found = _residuals(given, Injection(_slot(3), given[3], after=after))
    np.testing.assert_array_equal(found[:, :, :3], plain[:, :, :3])
    assert np.abs(found[-1][:, 4:] - plain[-1][:, 4:]).max() > 1e-3


def test_the_gradient_reaches_the_vector_after_a_block(given):
  architecture, params, tokens, vectors = given

  def loss(v):
    injection = Injection(_slot(3), v, after=1, mode=ADD)
    return jnp.sum(
      Transformer(architecture).apply({"params": params}, tokens, injection=injection).hidden ** 2
    )

  assert np.all(np.linalg.norm(jax.grad(loss)(vectors), axis=1) > 0)
