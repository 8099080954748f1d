"""Accumulated over micro-batches, a gradient is that of the whole batch, whatever its loss is the mean over."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.parallel.mesh import make_mesh
from nla_jax.training.accumulation import gradient
from nla_jax.training.losses import mask_count, masked_mean

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5, 3)).astype(np.float32)
MASK = np.arange(5)[None] < RNG.integers(0, 6, 12)[:, None]  # one row and more without a token
PARAMS = {"w": RNG.normal(size=(3,)).astype(np.float32)}


def _of_tokens(params, part):
  x, mask = part
  values = jnp.tanh(x @ params["w"])
  return masked_mean(values, mask), ({"square": masked_mean(values**2, mask)}, values[:, 0])


def _of_rows(params, part):
  value = jnp.mean(masked_mean(jnp.tanh(part[0] @ params["w"]), part[1], axis=1))
  return value, ({"double": 2 * value}, part[0][:, 0])


@pytest.mark.parametrize("accumulate", [2, 3, 12])
@pytest.mark.parametrize(
  ("loss", "weight"), [(_of_tokens, lambda part: mask_count(part[1])), (_of_rows, lambda part: 1.0)]
)
@pytest.mark.parametrize("mesh", [False, True])
def test_micro_batches_change_nothing(loss, weight, accumulate, mesh):
  def run(n):
    of_batch = functools.partial(gradient, loss, accumulate=n, weight=weight)
    return jax.jit(of_batch)(PARAMS, (X, MASK))

  whole = run(1)
  if mesh:
    with jax.set_mesh(make_mesh(1, 1, 1)):
      found = run(accumulate)
  else:
    found = run(accumulate)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, whole)
  assert not np.allclose(whole.grads["w"], 0)


def test_a_batch_that_counts_for_nothing_has_no_gradient():
  nothing = (X, np.zeros_like(MASK))
  found = gradient(
    _of_tokens, PARAMS, nothing, accumulate=3, weight=lambda part: mask_count(part[1])
  )
  assert float(found.value) == 0 and not np.any(found.grads["w"])
