"""The gradient of a mean over a batch, one part of the rows after the other: the same gradient in less memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.parallel import sharding


class Gradient(NamedTuple):
  """What `gradient` returns.

  Attributes:
    value: the mean over the batch.
    means: what the loss gives as further means, over the batch.
    rows: what it gives for each row, [n, …].
    grads: of the value, like the parameters.
  """

  value: jax.Array
  means: Any
  rows: Any
  grads: Any


def gradient(
  loss: Callable, params, batch, *, parts: int = 1, weight: Callable = lambda part: 1.0
) -> Gradient:
  """Value and gradient of a loss that is a weighted mean over rows.

  Args:
    loss: function of (params, batch) that gives (mean, (further means, values of each row)).
    params: what to differentiate by.
    batch: a tree of arrays whose leading axis is n rows.
    parts: into how many parts the rows are cut; divides n. Part i has the rows i, i + parts, …: each device a share of
      every part.
    weight: function of a part, what its mean counts for in the batch's: a constant where parts of equal size count
      alike, else such as the number of tokens that the mean is over.
  """
  differentiate = jax.value_and_grad(loss, has_aux=True)
  if parts == 1:
    (value, (means, rows)), grads = differentiate(params, batch)
    return Gradient(value, means, rows, grads)

  def add(totals, part):
    (value, (means, rows)), grads = differentiate(params, part)
    share = jnp.asarray(weight(part), jnp.float32)
    return jax.tree.map(
      lambda total, x: total + share * x, totals, (1.0, value, means, grads)
    ), rows

  cut = jax.tree.map(lambda x: _cut(x, parts), batch)
  _, (means, _) = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], cut))
  zero = jnp.zeros((), jnp.float32)
  start = (zero, zero, jax.tree.map(lambda _: zero, means), jax.tree.map(jnp.zeros_like, params))
  (total, *sums), rows = jax.lax.scan(add, start, cut)
  value, means, grads = jax.tree.map(lambda x: x / jnp.maximum(total, 1e-9), tuple(sums))
  return Gradient(value, means, jax.tree.map(_join, rows), grads)


def _cut(x, parts: int):
  """[n, …] as [parts, n / parts, …]."""
  shape = (x.shape[0] // parts, parts, *x.shape[1:])
  return jnp.moveaxis(_reshape(x, shape), 1, 0)


def _join(x):
  """[parts, n / parts, …] as [n, …], the rows where `_cut` found them."""
  return _reshape(jnp.moveaxis(x, 0, 1), (x.shape[0] * x.shape[1], *x.shape[2:]))


def _reshape(x, shape):
  axes = ("batch", *(None,) * (len(shape) - 1))
  return jnp.reshape(x, shape, out_sharding=sharding.activation(axes, shape))
