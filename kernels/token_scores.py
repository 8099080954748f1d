"""Log-probability of a chosen token and entropy of its distribution, from hidden states, without logits in memory.

With logits l = W h, the normaliser Z = log Σ exp l and p = exp(l − Z):

  logprob = l_t − Z        entropy = H = −Σ p log p = Z − Σ p l

One pass over the vocabulary in blocks keeps four numbers a row: the largest logit m so far (`top`), s = Σ exp(l − m)
(`total`), u = Σ exp(l − m)(l − m) (`moment`) and l_t (`picked`). When a block raises the maximum from m to m', with
c = exp(m − m'),

  s' = c·s        u' = c·(u + (m − m')·s)

and the same rule joins parts of the vocabulary that lie on different devices. At the end Z = m + log s,
logprob = (l_t − m) − log s and H = log s − u / s: large logits cancel before anything is rounded to their size. The
backward pass saves Z and H and computes the logits again, block by block:

  dl = g_logprob · (onehot_t − p) − g_entropy · p · (log p + H)        dh = dlᵀ W        dW = dl h

Operands are rounded to `dtype`, in the backward pass too (dl, h and W), and sums are float32.
"""

import functools
import importlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from nla_jax.kernels.token_scores_rules import raised

from nla_jax.parallel import sharding

FORMS = ("tpu", "gpu")


def kernels_of(form: str):
  """The module with the kernels of one such device. What Pallas needs for the others is not imported."""
  return importlib.import_module(f"nla_jax.kernels.token_scores_{form}")


def token_scores(
  hidden, matrix, targets, dtype=jnp.bfloat16, *, form: str = "tpu", interpret=False
):
  """Scores of chosen tokens, differentiable in `hidden` and `matrix`.

  Where a mesh is set, rows are shared by the batch axes and `matrix` is taken as it lies (vocabulary over `tensor`,
  width over `fsdp`); devices exchange the gathered matrix, a few numbers a row and the sums of the gradients.

  Args:
    hidden: [..., d_model], the state before each target.
    matrix: [vocabulary, d_model] unembedding.
    targets: [...] integers in [0, vocabulary).
    dtype: of the operands of products, bfloat16 or float32.
    form: whose kernels, `tpu` or `gpu`.
    interpret: run the kernels without such a device (True; for a TPU's also `pltpu.InterpretParams`), for tests.

  Returns:
    logprob [...], entropy [...], float32, in nats.
  """
  rows = ("batch", *(None,) * (targets.ndim - 1))
  hidden, targets = sharding.reshard(hidden, *rows, None), sharding.reshard(targets, *rows)
  return _scores(hidden, matrix, targets, jnp.dtype(dtype), form, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _scores(hidden, matrix, targets, dtype, form, interpret):
  return _forward(hidden, matrix, targets, dtype, form, interpret)[0]


class _Layout(NamedTuple):
  """Mesh axes that share the rows, the vocabulary and the width of the matrix; empty where nothing is shared."""

  rows: tuple[str, ...]
  vocabulary: tuple[str, ...]
  width: tuple[str, ...]


def _layout(matrix, targets) -> _Layout:
  if not sharding.has_mesh():
    return _Layout((), (), ())
  entries = (
    sharding.activation(("batch",), targets.shape[:1])[0],
    *jax.typeof(matrix).sharding.spec,
  )
  return _Layout(*((axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in entries))


def _on_each_device(function, arguments, results):
  """`function` of each device's parts of its arguments, PartitionSpecs of both given."""
  if not sharding.has_mesh():
    return function
  return jax.shard_map(function, in_specs=arguments, out_specs=results, check_vma=False)


def _operands(hidden, matrix, targets, layout: _Layout, dtype):
  """What a device multiplies: hidden [n, d], matrix [words, d] gathered after rounding; targets from its first word."""
  matrix = matrix.astype(dtype)
  if layout.width:
    matrix = jax.lax.all_gather(matrix, layout.width, axis=1, tiled=True)
  first = jax.lax.axis_index(layout.vocabulary) * len(matrix) if layout.vocabulary else 0
  return hidden.astype(dtype).reshape(-1, hidden.shape[-1]), matrix, targets.reshape(-1) - first


def _joined(top, total, moment, picked, axes):
  """Statistics of the whole vocabulary from those of its parts along mesh axes."""
  highest = jax.lax.pmax(top, axes)
  total, moment = raised(top, total, moment, highest)
  return highest, *jax.lax.psum((total, moment, picked), axes)


def _forward(hidden, matrix, targets, dtype, form, interpret):
  layout = _layout(matrix, targets)
  rows, lies = P(layout.rows), P(layout.vocabulary, layout.width)

  def local(hidden, matrix, targets):
    operands = _operands(hidden, matrix, targets, layout, dtype)
    top, total, moment, picked = kernels_of(form).statistics(*operands, interpret)
    if layout.vocabulary:
      top, total, moment, picked = _joined(top, total, moment, picked, layout.vocabulary)
    spread = jnp.log(total)
    return tuple(
      x.reshape(targets.shape)
      for x in (picked - top - spread, spread - moment / total, top + spread)
    )

  logprob, entropy, normaliser = _on_each_device(local, (rows, lies, rows), (rows,) * 3)(
    hidden, matrix, targets
  )
  return (logprob, entropy), (hidden, matrix, targets, normaliser, entropy)


def _backward(dtype, form, interpret, saved, cotangents):
  hidden, matrix, targets, normaliser, entropy = saved
  layout = _layout(matrix, targets)
  rows, lies = P(layout.rows), P(layout.vocabulary, layout.width)
  scattered = bool(layout.width) and set(layout.width) <= set(layout.rows)
  summed = tuple(axis for axis in layout.rows if not (scattered and axis in layout.width))

  def local(hidden, matrix, targets, *numbers):
    operands = _operands(hidden, matrix, targets, layout, dtype)
    dh, dw = kernels_of(form).gradients(
      *operands, jnp.stack([x.reshape(-1) for x in numbers]), interpret
    )
    if layout.vocabulary:
      dh = jax.lax.psum(dh, layout.vocabulary)
    if scattered:
      dw = jax.lax.psum_scatter(dw, layout.width, scatter_dimension=1, tiled=True)
    if summed:
      dw = jax.lax.psum(dw, summed)
    return dh.reshape(hidden.shape).astype(hidden.dtype), dw.astype(matrix.dtype)

  results = rows, lies if scattered else P(layout.vocabulary)
  dh, dw = _on_each_device(local, (rows, lies, *(rows,) * 5), results)(
    hidden, matrix, targets, normaliser, entropy, *cotangents
  )
  if sharding.has_mesh():  # where rows are not shared, every device has the whole width
    dw = jax.sharding.reshard(dw, lies)
  return dh, dw, None


_scores.defvjp(_forward, _backward)
