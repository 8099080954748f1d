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
from jaxtyping import Float, Integer
from nla_jax.kernels.token_scores_rules import raised

from nla_jax.arrays import Array
from nla_jax.parallel import sharding

FORMS = ("tpu", "gpu")


def kernels_of(form: str):
  """The module with the kernels for one form of device."""
  # What Pallas needs for the other form is not imported.
  return importlib.import_module(f"nla_jax.kernels.token_scores_{form}")


def token_scores(
  hidden: Float[Array, "*rows d_model"],
  matrix: Float[Array, "vocabulary d_model"],
  targets: Integer[Array, "*rows"],
  dtype=jnp.bfloat16,
  *,
  form: str = "tpu",
  interpret=False,
) -> tuple[Float[jax.Array, "*rows"], Float[jax.Array, "*rows"]]:
  """Scores of chosen tokens, differentiable in `hidden` and `matrix`.

  Where a mesh is set, rows are shared by the batch axes and `matrix` is taken as it lies (vocabulary over `tensor`,
  width over `fsdp`); devices exchange the gathered matrix, a few numbers a row and the sums of the gradients.

  Args:
    hidden: the state before each target.
    matrix: the unembedding.
    targets: in [0, vocabulary).
    dtype: of the operands of products, bfloat16 or float32.
    form: whose kernels are used, `tpu` or `gpu`.
    interpret: run the kernels without such a device (True; for a TPU's also `pltpu.InterpretParams`), for tests.

  Returns:
    log-probability and entropy of each target, float32, in nats.
  """
  # Rows lie as every activation does: only their leading axis is cut.
  rows = ("batch", *(None,) * (targets.ndim - 1))
  hidden, targets = sharding.reshard(hidden, *rows, None), sharding.reshard(targets, *rows)
  return _scores(hidden, matrix, targets, jnp.dtype(dtype), form, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _scores(hidden, matrix, targets, dtype, form, interpret):
  return _forward(hidden, matrix, targets, dtype, form, interpret)[0]


class _Layout(NamedTuple):
  """Mesh axes along which arrays are cut; empty where nothing is cut.

  Attributes:
    rows: of the rows.
    vocabulary: of the matrix's vocabulary.
    width: of the matrix's width.
  """

  rows: tuple[str, ...]
  vocabulary: tuple[str, ...]
  width: tuple[str, ...]


def _layout(matrix, targets) -> _Layout:
  if not sharding.has_mesh():
    return _Layout((), (), ())

  # The matrix stays as it lies; the rows were laid out by `token_scores`.
  entries = (
    sharding.activation(("batch",), targets.shape[:1])[0],
    *jax.typeof(matrix).sharding.spec,
  )
  return _Layout(*((axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in entries))


def _on_each_device(function, arguments, results):
  """A function that calls `function` on each device's parts of the arguments.

  Args:
    function: of one device's parts.
    arguments: a PartitionSpec for each argument.
    results: a PartitionSpec for each result.
  """
  if not sharding.has_mesh():
    return function
  return jax.shard_map(function, in_specs=arguments, out_specs=results, check_vma=False)


def _operands(hidden, matrix, targets, layout: _Layout, dtype):
  """What a device multiplies: hidden [n, d] and matrix [words, d]; and targets [n], counted from its first word."""
  # Gathered after rounding: in bfloat16 half the bytes are sent.
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
  """The scores, and what the backward pass needs: the operands, the normaliser and the entropy."""
  layout = _layout(matrix, targets)
  rows, lies = P(layout.rows), P(layout.vocabulary, layout.width)

  def local(hidden, matrix, targets):
    # 1. One pass over the device's part of the vocabulary, then the parts joined.
    operands = _operands(hidden, matrix, targets, layout, dtype)
    top, total, moment, picked = kernels_of(form).statistics(*operands, interpret)
    if layout.vocabulary:
      top, total, moment, picked = _joined(top, total, moment, picked, layout.vocabulary)

    # 2. Large logits cancel first: l_t − m and log s are small, while Z = m + log s is rounded to the size of m.
    spread = jnp.log(total)
    logprob, entropy, normaliser = picked - top - spread, spread - moment / total, top + spread
    return tuple(x.reshape(targets.shape) for x in (logprob, entropy, normaliser))

  logprob, entropy, normaliser = _on_each_device(local, (rows, lies, rows), (rows,) * 3)(
    hidden, matrix, targets
  )
  return (logprob, entropy), (hidden, matrix, targets, normaliser, entropy)


def _backward(dtype, form, interpret, saved, cotangents):
  """Gradients of hidden and matrix, each in its argument's layout; targets have none."""
  hidden, matrix, targets, normaliser, entropy = saved
  layout = _layout(matrix, targets)
  rows, lies = P(layout.rows), P(layout.vocabulary, layout.width)

  # The gradient of the matrix is a sum over rows. Where the axes that cut its width also cut the rows, summing and
  # scattering are one step; over the other axes of the rows it is only summed.
  scattered = bool(layout.width) and set(layout.width) <= set(layout.rows)
  summed = tuple(axis for axis in layout.rows if not (scattered and axis in layout.width))

  def local(hidden, matrix, targets, *numbers):
    operands = _operands(hidden, matrix, targets, layout, dtype)
    dh, dw = kernels_of(form).gradients(
      *operands, jnp.stack([x.reshape(-1) for x in numbers]), interpret
    )

    # dh is a sum over the vocabulary, of which each device has seen its own part.
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
