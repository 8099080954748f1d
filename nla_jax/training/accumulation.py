"""Gradient accumulation: the gradient of a mean over a batch, one micro-batch after another, in less memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from nla_jax.parallel import sharding


class Gradient(NamedTuple):
  """What `gradient` returns.

  Attributes:
    value: the mean over the batch.
    means: the further means that the loss gives, over the batch.
    rows: what the loss gives for each row, [n, …].
    grads: gradient of the value, a tree like the parameters.
  """

  value: Float[jax.Array, ""]
  means: Any
  rows: Any
  grads: Any


def _alike(micro_batch) -> float:
  """Every micro-batch counts as much as the others."""
  return 1.0


def gradient(
  loss: Callable, params, batch, *, accumulate: int = 1, weight: Callable = _alike
) -> Gradient:
  """Value and gradient of a loss that is a weighted mean over rows.

  Args:
    loss: function of (params, batch) that gives (mean, (further means, values of each row)).
    params: what to differentiate with respect to.
    batch: a tree of arrays whose leading axis is n rows.
    accumulate: number of micro-batches, a divisor of n. Micro-batch i holds the rows i, i + accumulate, …, so that
      each device has a share of every micro-batch.
    weight: function of a micro-batch: the weight of its mean in the mean of the batch. A constant where micro-batches
      of equal size count alike; otherwise, for example, the number of tokens that the mean is over.
  """
  differentiate = jax.value_and_grad(loss, has_aux=True)
  if accumulate == 1:
    (value, (means, rows)), grads = differentiate(params, batch)
    return Gradient(value, means, rows, grads)

  # 1. Micro-batches along a new leading axis, and sums that begin at zero.
  micro_batches = jax.tree.map(lambda x: _split(x, accumulate), batch)
  _, (means, _) = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], micro_batches))
  zero = jnp.zeros((), jnp.float32)
  start = (zero, zero, jax.tree.map(lambda _: zero, means), jax.tree.map(jnp.zeros_like, params))

  # 2. One micro-batch after another: the activations of only one are in memory.
  def add(totals, micro_batch):
    (value, (means, rows)), grads = differentiate(params, micro_batch)
    share = jnp.asarray(weight(micro_batch), jnp.float32)
    found = (1.0, value, means, grads)
    return jax.tree.map(lambda total, x: total + share * x, totals, found), rows

  (total, *sums), rows = jax.lax.scan(add, start, micro_batches)

  # 3. Sums become means. Where no row counts, the total is 0 and so is the gradient.
  value, means, grads = jax.tree.map(lambda x: x / jnp.maximum(total, 1e-9), tuple(sums))
  return Gradient(value, means, jax.tree.map(_join, rows), grads)


def _split(x, n: int):
  """Rows [n · m, …] as micro-batches [n, m, …]."""
  shape = (x.shape[0] // n, n, *x.shape[1:])
  return jnp.moveaxis(_reshape(x, shape), 1, 0)


def _join(x):
  """Micro-batches [n, m, …] as rows [n · m, …], each where `_split` found it."""
  return _reshape(jnp.moveaxis(x, 0, 1), (x.shape[0] * x.shape[1], *x.shape[2:]))


def _reshape(x, shape):
  # Explicit sharding does not guess which of the new axes is cut: the leading one is, as before.
  axes = ("batch", *(None,) * (len(shape) - 1))
  return jnp.reshape(x, shape, out_sharding=sharding.activation(axes, shape))
