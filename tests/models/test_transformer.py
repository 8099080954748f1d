"""One decoder is every family: equal to transformers, padded either side, cached, stopped early, prefix shared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.models import products
from nla_jax.models.architectures import Architecture
from nla_jax.models.cache import empty_cache
from nla_jax.models.injection import Injection
from nla_jax.models.parameters import lower_params, rounded, unembedding
from nla_jax.models.transformer import Transformer

FAMILIES = (
  "llama",
  "llama3",
  "llama3_untied",
  "qwen2",
  "qwen3",
  "gemma3_text",
  "gemma3",
)  # see conftest's `_make`
LENGTH = 24
TOKENS = np.random.default_rng(1).integers(0, 101, (3, LENGTH)).astype(np.int32)
REAL = np.array([LENGTH, 17, 9])  # real tokens of each row where a test pads


def _valid(side: str) -> np.ndarray:
  columns = np.arange(LENGTH)[None]
  return {
    "none": np.ones((3, LENGTH), bool),
    "right": columns < REAL[:, None],
    "left": columns >= LENGTH - REAL[:, None],
  }[side]


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, tokens, options):
  return model.apply({"params": params}, tokens, **options)


def _forward(architecture, params, tokens, **options):
  model = Transformer(architecture, collect=tuple(range(architecture.n_layers)))
  return _apply(model, params, tokens, options)


@pytest.mark.parametrize("family", ["gemma3_text", "gemma3"])
def test_the_tests_reach_past_gemmas_sliding_window(pair, family):
  """In every row, padded or not."""
  architecture = pair(family)[1]
  assert architecture.family == "gemma3_text"
  assert 0 in architecture.windows and 0 < max(architecture.windows) < min(REAL)


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_every_residual_equal_transformers(
  pair, torch_forward, relative_error, family, side
):
  model, architecture, params = pair(family)
  valid = _valid(side)
  expected_residuals, expected_logits = torch_forward(model, TOKENS, valid)
  output = _forward(architecture, params, TOKENS, **({} if side == "none" else {"valid": valid}))
  residuals, logits = output.residuals, output.hidden @ unembedding(params).T
  assert relative_error(logits[valid], expected_logits[valid]) < 1e-4
  for layer in range(architecture.n_layers):
    assert relative_error(residuals[layer][valid], expected_residuals[layer][valid]) < 1e-4, layer


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_the_full_forward(pair, relative_error, family, side):
  """Rows padded on either side prefill together, then go token by token; the full forward has them on the left."""
  _, architecture, params = pair(family)
  valid, prefill = _valid("left"), LENGTH - 5
  full = _forward(architecture, params, TOKENS, valid=valid).hidden
  first = [TOKENS[:, :prefill], valid[:, :prefill], np.asarray(full[:, :prefill])]
  if side == "right":
    first = [
      np.stack([np.roll(row, n - LENGTH, axis=0) for row, n in zip(array, REAL)]) for array in first
    ]
  tokens, valid, expected = first
  run = lambda tokens, cache, **options: _apply(
    Transformer(architecture), params, tokens, dict(cache=cache, **options)
  )
  output = run(tokens, empty_cache(architecture, 3, LENGTH + 2), valid=valid)
  assert relative_error(output.hidden[valid], expected[valid]) < 1e-4
  for i in range(prefill, LENGTH):
    output = run(TOKENS[:, i : i + 1], output.cache)
    assert relative_error(output.hidden[:, 0], full[:, i]) < 1e-4, i
  assert int(output.cache.filled) == LENGTH


@pytest.mark.parametrize("family", ["llama3_untied", "qwen3", "gemma3_text"])
def test_cached_decoding_after_a_shared_prefix_equals_the_full_forward(
  pair, relative_error, family
):
  _, architecture, params = pair(family)
  prefix, own = TOKENS[0, :10], TOKENS[:, 10:]
  rows = np.concatenate([np.broadcast_to(prefix, (3, 10)), own], axis=1)
  model = Transformer(architecture)
  full = _forward(architecture, params, rows).hidden[:, 10:]
  cache = empty_cache(architecture, 3, own.shape[1])
  output = _apply(model, params, own[:, :4], dict(prefix=prefix, cache=cache))
  pieces = [output.hidden]
  for i in range(4, own.shape[1]):
    output = _apply(model, params, own[:, i : i + 1], dict(cache=output.cache))
    pieces.append(output.hidden)
  assert relative_error(jnp.concatenate(pieces, axis=1), full) < 1e-4


@pytest.mark.parametrize(("family", "remat"), [("qwen2", False), ("gemma3_text", True)])
def test_a_shared_prefix_equals_the_plain_forward_with_its_gradients(
  pair, relative_error, family, remat
):
  """Loss, gradient of every parameter and of the injected vectors; the slot is the third token after the prefix."""
  _, architecture, params = pair(family)
  prefix, own = TOKENS[0, :9], TOKENS[:, 9:]
  rng = np.random.default_rng(2)
  weights = rng.normal(size=(*own.shape, architecture.d_model)).astype(np.float32)
  vectors = rng.normal(size=(3, architecture.d_model)).astype(np.float32)
  model = Transformer(architecture, remat=remat)

  def shared(p, v):
    injection = Injection(jnp.broadcast_to(jnp.arange(own.shape[1]) == 2, own.shape), v)
    return jnp.sum(
      weights * model.apply({"params": p}, own, prefix=prefix, injection=injection).hidden
    )

  def plain(p, v):
    rows = np.concatenate([np.broadcast_to(prefix, (3, 9)), own], axis=1)
    injection = Injection(jnp.broadcast_to(jnp.arange(LENGTH) == 11, rows.shape), v)
    return jnp.sum(weights * model.apply({"params": p}, rows, injection=injection).hidden[:, 9:])

  loss, grads = jax.jit(jax.value_and_grad(shared, (0, 1)))(params, vectors)
  expected_loss, expected = jax.jit(jax.value_and_grad(plain, (0, 1)))(params, vectors)
  assert float(loss) == pytest.approx(float(expected_loss), rel=1e-4)
  for (path, found), wanted in zip(
    jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected)
  ):
    if np.any(wanted):  # the unembedding takes no part in this loss
      assert relative_error(found, wanted) < 1e-3, jax.tree_util.keystr(path)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_stopping_after_a_block_gives_that_blocks_residual(pair, relative_error, family):
  """And needs neither the blocks above nor the final norm."""
  _, architecture, params = pair(family)
  residuals = _forward(architecture, params, TOKENS).residuals
  for layer in (0, 2):
    lower = lower_params(params, layer + 1)
    assert set(lower) == {"embedding", "layers"}
    hidden = _apply(Transformer(architecture, layer), lower, TOKENS, {}).hidden
    assert relative_error(hidden, residuals[layer]) < 1e-5
    cut = _apply(Transformer(architecture.lower(layer + 1), layer), lower, TOKENS, {}).hidden
    np.testing.assert_array_equal(cut, hidden)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_bfloat16_operands_stay_close_and_the_stream_stays_float32(pair, relative_error, family):
  _, architecture, params = pair(family)
  run = lambda dtype: (
    _apply(Transformer(architecture, 1, dtype), lower_params(params, 2), TOKENS, {}).hidden
  )
  rounded, exact = run(jnp.bfloat16), run(jnp.float32)
  assert rounded.dtype == jnp.float32
  assert 1e-5 < relative_error(rounded, exact) < 0.03


def test_parameters_rounded_beforehand_give_the_same_forward(tiny_architecture, tiny_params):
  model = Transformer(tiny_architecture, dtype=jnp.bfloat16)
  small = rounded(tiny_params, jnp.bfloat16)
  assert small["layers"]["query"].dtype == small["unembedding"].dtype == jnp.bfloat16
  assert small["layers"]["mlp_norm"].dtype == small["embedding"].dtype == jnp.float32
  np.testing.assert_array_equal(
    _apply(model, small, TOKENS, {}).hidden, _apply(model, tiny_params, TOKENS, {}).hidden
  )


def test_rounded_einsum_has_the_gradient_of_the_product():
  rng = np.random.default_rng(0)
  a, b = (
    rng.normal(size=(4, 5, 6)).astype(np.float32),
    rng.normal(size=(6, 2, 3)).astype(np.float32),
  )
  weights = rng.normal(size=(4, 5, 2, 3)).astype(np.float32)

  def gradients(product):
    return jax.grad(
      lambda x, y: jnp.sum(weights * jnp.sin(product("bsd,dhk->bshk", x, y))), (0, 1)
    )(a, b)

  expected = gradients(jnp.einsum)
  for dtype, bound in ((jnp.float32, 1e-4), (jnp.bfloat16, 0.3)):
    for found, wanted in zip(gradients(functools.partial(products.einsum, dtype=dtype)), expected):
      assert found.dtype == jnp.float32
      np.testing.assert_allclose(found, wanted, atol=bound)


def test_a_family_cannot_be_cut_to_more_blocks_than_it_has(tiny_architecture):
  assert isinstance(tiny_architecture.lower(4), Architecture)
  with pytest.raises(ValueError, match="first 5 blocks of a model that has 4"):
    tiny_architecture.lower(5)
