"""The AR reads the last real token of the block it was cut at."""

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.models.reconstructor import Reconstructor, reconstructor_params
from nla_jax.models.transformer import Transformer

K = 2
BEFORE = np.array([5, 6, 7], np.int32)
TOKENS = np.random.default_rng(0).integers(0, 300, (4, 12)).astype(np.int32)
LENGTHS = np.array([12, 7, 1, 3], np.int32)


def _run(architecture, params, tokens=TOKENS, lengths=LENGTHS):
  model = Reconstructor(architecture.lower(K + 1))
  return jax.jit(lambda p, *rest: model.apply({"params": p}, BEFORE, *rest))(
    params, tokens, lengths
  )


def test_a_fresh_ar_returns_block_ks_residual_at_the_last_real_token(
  tiny_architecture, tiny_params, relative_error
):
  rows = np.concatenate([np.tile(BEFORE, (4, 1)), TOKENS], axis=1)
  target = Transformer(tiny_architecture, collect=(K,))
  residual = jax.jit(lambda p: target.apply({"params": p}, rows).residuals[0])(tiny_params)
  expected = residual[np.arange(4), len(BEFORE) + LENGTHS - 1]
  assert (
    relative_error(_run(tiny_architecture, reconstructor_params(tiny_params, K)), expected) < 1e-5
  )


def test_padding_on_the_right_does_not_matter(tiny_architecture, tiny_params):
  params = reconstructor_params(tiny_params, K)
  other = np.where(np.arange(12)[None] < LENGTHS[:, None], TOKENS, 299)
  found = _run(tiny_architecture, params)
  np.testing.assert_array_equal(_run(tiny_architecture, params, other), found)
  wider = np.pad(TOKENS, ((0, 0), (0, 5)))
  np.testing.assert_allclose(_run(tiny_architecture, params, wider), found, rtol=1e-4, atol=1e-4)


def test_the_head_multiplies_the_residual_from_the_right(
  tiny_architecture, tiny_params, relative_error
):
  params = reconstructor_params(tiny_params, K)
  weight = jax.random.normal(jax.random.key(0), (32, 32))
  found = _run(tiny_architecture, {**params, "head": {"weight": weight}})
  assert relative_error(found, _run(tiny_architecture, params) @ weight) < 1e-5


def test_it_holds_nothing_above_block_k(tiny_architecture, tiny_params):
  params = reconstructor_params(tiny_params, K)
  assert set(params["transformer"]) == {"embedding", "layers"}
  assert {leaf.shape[0] for leaf in jax.tree.leaves(params["transformer"]["layers"])} == {K + 1}
  fresh = jax.eval_shape(
    Reconstructor(tiny_architecture.lower(K + 1)).init, jax.random.key(0), BEFORE, TOKENS, LENGTHS
  )
  assert jax.tree.map(jnp.shape, fresh["params"]) == jax.tree.map(jnp.shape, params)


def test_a_gradient_reaches_every_parameter_and_recomputing_blocks_does_not_change_it(
  tiny_architecture, tiny_params
):
  params = reconstructor_params(tiny_params, K)

  def gradient(remat):
    model = Reconstructor(tiny_architecture.lower(K + 1), remat=remat)
    loss = lambda p: jnp.sum(model.apply({"params": p}, BEFORE, TOKENS, LENGTHS) ** 2)
    return jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))

  for (path, found), (_, wanted) in zip(gradient(True), gradient(False)):
    assert np.isfinite(found).all() and np.any(found), jax.tree_util.keystr(path)
    np.testing.assert_allclose(
      found, wanted, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(wanted)))
    )
