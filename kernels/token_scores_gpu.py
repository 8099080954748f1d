"""The GPU's part of `token_scores.py`: Pallas kernels (Triton) for one device, with its formulas and names.

A program has registers for a tile of logits, not for sums as wide as the model. So no kernel sums gradients: one kernel
gathers a row's four numbers over a share of the vocabulary, another writes the gradient of a chunk of logits in the
operands' dtype, and the two products of that chunk are left to the library. Logits in float32 are never in memory.

Nothing needs to divide: what lies past an array's end is read as 0 and not written.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Float, Integer
from nla_jax.kernels.token_scores_rules import LEAST, logit_gradient, raised

from nla_jax.arrays import Array

ROWS, WORDS = 128, 128  # of the tile of logits that a program holds
DEPTH_BYTES = 128  # of a row of either operand, read at a time
SHARES = 8  # of the vocabulary, so that few rows keep a whole GPU busy
CHUNK = 8192  # words whose logits' gradients are in memory at once


def statistics(
  hidden: Float[jax.Array, "n d"],
  matrix: Float[jax.Array, "words d"],
  targets: Integer[Array, " n"],
  interpret=False,
) -> Float[jax.Array, "4 n"]:
  """The numbers (top, total, moment, picked) of each row, float32; hidden and matrix have one dtype.

  A target outside [0, words) picks nothing: its word lies on another device.
  """
  # 1. Each program gathers the numbers of its rows over a share of the vocabulary.
  n, words = len(hidden), len(matrix)
  blocks = pl.cdiv(pl.cdiv(words, WORDS), SHARES)
  shares = pl.cdiv(words, blocks * WORDS)
  parts = _call(
    functools.partial(_statistics_kernel, blocks=blocks),
    (pl.cdiv(n, ROWS), shares),
    (shares, 4, n),
    jnp.float32,
    "statistics",
    interpret,
  )(hidden, matrix, targets)

  # 2. The shares joined around the largest logit of all.
  top, total, moment, picked = parts.swapaxes(0, 1)
  highest = jnp.max(top, axis=0)
  total, moment = raised(top, total, moment, highest)
  return jnp.stack([highest, *(x.sum(axis=0) for x in (total, moment, picked))])


def gradients(
  hidden: Float[jax.Array, "n d"],
  matrix: Float[jax.Array, "words d"],
  targets: Integer[Array, " n"],
  numbers: Float[jax.Array, "4 n"],
  interpret=False,
) -> tuple[Float[jax.Array, "n d"], Float[jax.Array, "words d"]]:
  """dh and dW, float32; `numbers` are (normaliser, entropy, g_logprob, g_entropy) of each row, float32."""
  (n, d), words = hidden.shape, len(matrix)
  chunk = min(CHUNK, words)
  # By default a GPU rounds float32 operands to TF32, which has ten bits.
  exact = jax.lax.Precision.HIGHEST if hidden.dtype == jnp.float32 else None
  product = functools.partial(jnp.matmul, precision=exact, preferred_element_type=jnp.float32)
  call = _call(
    _gradient_kernel,
    (pl.cdiv(n, ROWS), pl.cdiv(chunk, WORDS)),
    (n, chunk),
    hidden.dtype,
    "gradient",
    interpret,
  )

  def add(i, sums):
    # The last chunk begins early enough to be whole; `done` words of it were counted in the chunk before.
    dh, dw = sums
    first = jnp.minimum(i * chunk, words - chunk)
    block = jax.lax.dynamic_slice_in_dim(matrix, first, chunk)
    done = i * chunk - first
    dl = call(hidden, block, targets - first, numbers, done[None])
    part = product(dl.T, hidden) + jax.lax.dynamic_slice_in_dim(dw, first, chunk)
    return dh + product(dl, block), jax.lax.dynamic_update_slice_in_dim(dw, part, first, 0)

  return jax.lax.fori_loop(
    0, pl.cdiv(words, chunk), add, (jnp.zeros((n, d)), jnp.zeros((words, d)))
  )


def _call(kernel, grid, shape, dtype, name: str, interpret):
  """A kernel whose arguments and one result, of this shape, are whole arrays in the GPU's memory."""
  return pl.pallas_call(
    kernel,
    out_shape=jax.ShapeDtypeStruct(shape, dtype),
    grid=grid,
    compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
    name=f"token_scores_{name}",
    interpret=interpret,
  )


def _statistics_kernel(hidden, matrix, targets, out, *, blocks: int):
  """Grid (rows, shares): `out` [shares, 4, n] gets what `blocks` blocks of words say of a block of rows."""
  # Rows past the end are computed on zeros and not written.
  n, words = len(hidden), len(matrix)
  row, share = pl.program_id(0) * ROWS + jnp.arange(ROWS), pl.program_id(1)
  target = triton.load(targets.at[row], mask=row < n, other=-1)

  def add(j, sums):
    before, total, moment, picked = sums
    word = (share * blocks + j) * WORDS + jnp.arange(WORDS)
    logits = jnp.where(word[None] < words, _logits(hidden, matrix, row, word), LEAST)
    top = jnp.maximum(before, jnp.max(logits, axis=1))
    total, moment = raised(before, total, moment, top)
    shifted = logits - top[:, None]
    weights = jnp.exp(shifted)

    here = (word[None] == target[:, None]) & (word[None] < words)
    return (
      top,
      total + jnp.sum(weights, axis=1),
      moment + jnp.sum(weights * shifted, axis=1),
      picked + jnp.sum(jnp.where(here, logits, 0.0), axis=1),
    )

  zero = jnp.zeros(ROWS, jnp.float32)
  for k, numbers in enumerate(jax.lax.fori_loop(0, blocks, add, (zero + LEAST, zero, zero, zero))):
    triton.store(out.at[share, k, row], numbers, mask=row < n)


def _gradient_kernel(hidden, matrix, targets, numbers, done, out):
  """Grid (rows, words): a tile of dl [n, words] in the operands' dtype, zeros in the first `done` words."""
  n, words = len(hidden), len(matrix)
  row = pl.program_id(0) * ROWS + jnp.arange(ROWS)
  word = pl.program_id(1) * WORDS + jnp.arange(WORDS)
  target = triton.load(targets.at[row], mask=row < n, other=-1)
  normaliser, entropy, g_logprob, g_entropy = (
    triton.load(numbers.at[k, row], mask=row < n, other=0.0)[:, None] for k in range(4)
  )

  # The logits are computed again: in float32 they are never in memory.
  log_p = _logits(hidden, matrix, row, word) - normaliser
  dl = logit_gradient(log_p, word[None] == target[:, None], entropy, g_logprob, g_entropy)
  dl = jnp.where(word[None] >= done[0], dl, 0.0)
  triton.store(
    out.at[row[:, None], word[None]],
    dl.astype(out.dtype),
    mask=(row[:, None] < n) & (word[None] < words),
  )


def _logits(hidden, matrix, row, word):
  """[rows, words] float32 of these rows and words; float32 operands are not rounded."""
  (n, d), words = hidden.shape, len(matrix)
  exact = jax.lax.Precision.HIGHEST if hidden.dtype == jnp.float32 else None
  length = DEPTH_BYTES // hidden.dtype.itemsize

  def read(ref, index, end, depth):
    piece = ref.at[index[:, None], depth[None]]
    return triton.load(piece, mask=(index[:, None] < end) & (depth[None] < d), other=0.0)

  # A program has registers for the tile of logits and for a piece of either operand, not for whole rows.
  def add(k, total):
    depth = k * length + jnp.arange(length)
    return total + jax.lax.dot_general(
      read(hidden, row, n, depth),
      read(matrix, word, words, depth),
      (((1,), (1,)), ((), ())),
      precision=exact,
      preferred_element_type=jnp.float32,
    )

  return jax.lax.fori_loop(
    0, pl.cdiv(d, length), add, jnp.zeros((len(row), len(word)), jnp.float32)
  )
