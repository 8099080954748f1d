"""Residuals of texts of any lengths are those of whole forwards, in chunks or not, by few programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mesh_numbers import COMMON, FAMILIES

from nla_jax.decoding import loop
from nla_jax.decoding import residuals as module
from nla_jax.decoding.residuals import extend, padded_length, residuals
from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import as_base, lower_params
from nla_jax.models.products import from_bits
from nla_jax.models.transformer import Transformer

LAYER = 1
DRAW = np.random.default_rng(0)
TEXTS = [DRAW.integers(0, 300, n).tolist() for n in (3, 61, 17, 1, 40, 64, 9, 25, 33)]
POSITIONS = [[2, 0], [60, 5, 31, 32, 33], [16], [0], [], [63, 0], [4, 4], [24], [1, 30, 7]]


@functools.partial(jax.jit, static_argnums=0)
def _whole(architecture, params, tokens):
  return Transformer(architecture, LAYER).apply({"params": params}, tokens).hidden[0]


def expected(architecture, params) -> list[np.ndarray]:
  """By one unpadded length for all: a causal model does not look at what follows."""
  found = []
  for text, wanted in zip(TEXTS, POSITIONS):
    tokens = jnp.array([text + [0] * (64 - len(text))], jnp.int32)
    found.append(np.asarray(_whole(architecture, params, tokens))[wanted])
  return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", [8, 256])
def test_residuals_are_those_of_whole_forwards(random_params, family, chunk):
  """Windows are shorter than the longest texts, so some positions lie beyond one."""
  architecture = Architecture(family=family, **COMMON, **FAMILIES[family])
  params = lower_params(random_params(architecture), LAYER + 1)
  found = residuals(
    params, TEXTS, POSITIONS, architecture=architecture, layer=LAYER, dtype=jnp.float32, chunk=chunk
  )
  for one, other in zip(found, expected(architecture, params), strict=True):
    assert one.shape == other.shape
    np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_base_that_adapters_share_is_read_where_it_lies(random_params):
  architecture = Architecture(family="llama", **COMMON, **FAMILIES["llama"])
  params = random_params(architecture)
  options = dict(architecture=architecture, layer=LAYER, dtype=jnp.float32, chunk=16)
  base = as_base(params)
  exact = lower_params(
    jax.tree.map(lambda leaf: from_bits(leaf).astype(jnp.float32), base), LAYER + 1
  )
  expected = residuals(exact, TEXTS, POSITIONS, **options)
  for one, other in zip(residuals({"base": base}, TEXTS, POSITIONS, **options), expected):
    np.testing.assert_allclose(one, other, atol=2e-5)


def test_lengths_are_rounded_to_few():
  for length, padded in (
    (1, 32),
    (32, 32),
    (33, 64),
    (256, 256),
    (257, 512),
    (513, 768),
    (8000, 8192),
  ):
    assert padded_length(length) == padded
  assert padded_length(9, chunk=8) == 16


def test_after_a_warm_up_no_length_compiles(random_params, monkeypatch):
  monkeypatch.setattr(module, "LENGTHS", (4, 8))
  architecture = Architecture(family="llama", **COMMON, **FAMILIES["llama"])
  params = lower_params(random_params(architecture), LAYER + 1)
  options = dict(architecture=architecture, layer=LAYER, dtype=jnp.float32, chunk=8)

  def read(*lengths):
    texts = [[7] * n for n in lengths]
    return residuals(params, texts, [[n - 1] for n in lengths], **options)

  # One text alone and several, of every padded length up to 32.
  for n in (4, 8, 16, 32):
    read(n)
    read(n, n)
  compiled = [extend._cache_size(), loop.enlarged._cache_size()]
  for n in range(1, 33):
    read(n)
  read(*range(1, 33))
  assert [extend._cache_size(), loop.enlarged._cache_size()] == compiled


def test_a_chunk_attends_to_no_more_than_twice_what_stands_before_it(random_params, monkeypatch):
  rooms = []

  def spy(params, tokens, valid, cache, *, model):
    rooms.append(cache.length)
    return extend(params, tokens, valid, cache, model=model)

  monkeypatch.setattr(module, "extend", spy)
  architecture = Architecture(family="llama", **COMMON, **FAMILIES["llama"])
  params = lower_params(random_params(architecture), LAYER + 1)
  options = dict(architecture=architecture, layer=LAYER, dtype=jnp.float32, chunk=8)
  residuals(params, [[7] * 64], [[63]], **options)
  assert rooms == [16, 16, 32, 32, 64, 64, 64, 64]

  # Of what follows the last token that is asked for nothing is computed.
  rooms.clear()
  residuals(params, [[7] * 64], [[20]], **options)
  assert rooms == [16, 16, 32]
