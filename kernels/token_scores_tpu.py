"""The TPU's part of `token_scores.py`: Pallas kernels for one device, with its formulas and names.

Blocks of logits are held transposed, [words, rows], words being entries of the vocabulary: the numbers of a row then
lie along lanes, where [4, n] needs no padding to 128, and sums over the vocabulary run down the sublanes. Nothing
needs to divide: what lies past an array's end in its last block is left out.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Float, Integer
from nla_jax.kernels.token_scores_rules import LEAST, logit_gradient, raised

from nla_jax.arrays import Array

# Of the vector memory (v5p and v7x have 64 MiB a core, v5e and v6e 128): what blocks may fill, and the compiler in all.
BLOCK_BYTES, VMEM_BYTES = 36 * 2**20, 56 * 2**20


def statistics(
  hidden: Float[jax.Array, "n d"],
  matrix: Float[jax.Array, "words d"],
  targets: Integer[Array, " n"],
  interpret=False,
) -> Float[jax.Array, "4 n"]:
  """The numbers (top, total, moment, picked) of each row, float32; hidden and matrix have one dtype.

  A target outside [0, words) picks nothing: its word lies on another device.
  """
  words = len(matrix)
  # The last block has positions past the end, which a target of another device could meet.
  targets = jnp.where((targets >= 0) & (targets < words), targets, -1)
  kernel = functools.partial(_statistics_kernel, words=words)
  return _sweep(kernel, "numbers", hidden, matrix, targets[None], interpret=interpret)


def gradients(
  hidden: Float[jax.Array, "n d"],
  matrix: Float[jax.Array, "words d"],
  targets: Integer[Array, " n"],
  numbers: Float[jax.Array, "4 n"],
  interpret=False,
) -> tuple[Float[jax.Array, "n d"], Float[jax.Array, "words d"]]:
  """dh and dW, float32; `numbers` are (normaliser, entropy, g_logprob, g_entropy) of each row, float32."""
  arguments = hidden, matrix, targets[None], numbers
  dh = _sweep(
    functools.partial(_hidden_kernel, words=len(matrix)), "hidden", *arguments, interpret=interpret
  )
  dw = _sweep(
    functools.partial(_matrix_kernel, n=len(hidden)), "matrix", *arguments, interpret=interpret
  )
  return dh, dw


def block_sizes(d: int, itemsize: int, gradient: bool) -> tuple[int, int]:
  """Lengths (kept, streamed) of blocks that fit in BLOCK_BYTES, each at least 128.

  A kernel keeps a block [kept, d] of one operand while blocks [streamed, d] of the other pass by, so an element that
  passes serves `kept` multiply-adds, twice as many in a backward pass: `streamed` shrinks to 256 first, then `kept`.

  Args:
    d: width of both operands.
    itemsize: bytes of an operand's element.
    gradient: whether a float32 sum [kept, d] is kept as well.
  """
  # Exact products of float32 unroll into long programs, so those blocks begin smaller.
  kept, streamed = (1024, 512) if itemsize < 4 else (256, 128)

  def size():
    # Each buffer is there twice, to copy while computing.
    buffers = 2 * d * ((kept + streamed) * itemsize + kept * 4 * gradient)
    # Exact products split float32 into three bfloat16.
    pieces = 3 * 2 * d * (kept + streamed) if itemsize == 4 else 0
    # Beside them about four float32 arrays of logits.
    return buffers + pieces + 4 * kept * streamed * 4

  while size() > BLOCK_BYTES and max(kept, streamed) > 128:
    if streamed > (256 if kept > 256 else 128):
      streamed //= 2
    else:
      kept //= 2
  return kept, streamed


def _sweep(kernel, result: str, hidden, matrix, *per_row, interpret):
  """Runs a kernel over blocks of its arguments and of its one result.

  Args:
    kernel: called with references to the blocks of all arguments and of the result.
    result: what the result is like: "numbers" is [4, n], "hidden" and "matrix" have the shape of that argument.
    hidden: [n, d].
    matrix: [words, d].
    *per_row: arrays [k, n].
    interpret: run it without a TPU.
  """
  # 1. Sizes of the blocks, none larger than its array.
  (n, d), words, itemsize = hidden.shape, len(matrix), hidden.dtype.itemsize
  by_rows, gradient = result != "matrix", result != "numbers"
  kept, streamed = block_sizes(d, itemsize, gradient)
  row_block = min(kept if by_rows else streamed, _tiled(n))
  word_block = min(streamed if by_rows else kept, _tiled(words))

  # 2. The grid is (rows, words), for a matrix (words, rows): the result's block depends on the first axis only, so it
  # stays in vector memory as the sum over the second.
  grid = pl.cdiv(n, row_block), pl.cdiv(words, word_block)

  def turned(index):
    return index if by_rows else lambda j, i: index(i, j)

  def numbers(count: int):
    return pl.BlockSpec((count, row_block), turned(lambda i, j: (0, i)))

  # 3. Shapes and blocks of arguments and result.
  shapes = {"numbers": (4, n), "hidden": (n, d), "matrix": (words, d)}
  specs = {
    "numbers": numbers(4),
    "hidden": pl.BlockSpec((row_block, d), turned(lambda i, j: (i, 0))),
    "matrix": pl.BlockSpec((word_block, d), turned(lambda i, j: (j, 0))),
  }

  # 4. The kernel. The operand that is kept is read once, the other once for each block of it.
  read = n * d + grid[0] * words * d if by_rows else words * d + grid[1] * n * d
  return pl.pallas_call(
    kernel,
    out_shape=jax.ShapeDtypeStruct(shapes[result], jnp.float32),
    grid=grid if by_rows else grid[::-1],
    in_specs=[specs["hidden"], specs["matrix"], *(numbers(len(x)) for x in per_row)],
    out_specs=specs[result],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
    ),
    cost_estimate=pl.CostEstimate(
      flops=(4 if gradient else 2) * n * words * d,
      transcendentals=n * words,
      bytes_accessed=read * itemsize + 4 * shapes[result][0] * shapes[result][1],
    ),
    name=f"token_scores_{result}",
    interpret=interpret,
  )(hidden, matrix, *per_row)


def _tiled(length: int) -> int:
  """A length rounded up to a whole number of 128 lanes."""
  return pl.cdiv(length, 128) * 128


def _statistics_kernel(hidden, matrix, targets, out, *, words: int):
  """Grid (rows, words): `out` [4, rows] gathers what the blocks of words say."""
  j = pl.program_id(1)

  # 1. Before the first block of words there is nothing.
  @pl.when(j == 0)
  def _():
    out[0:1] = jnp.full_like(out[0:1], LEAST)
    out[1:4] = jnp.zeros_like(out[1:4])

  # 2. This block's logits. What lies past the end of the vocabulary may be anything.
  logits = _product(matrix[...], hidden[...], (1, 1))  # [words, rows]
  word = _positions(j, logits.shape, 0)
  if words % len(logits):
    logits = jnp.where(word < words, logits, LEAST)

  # 3. The four numbers, around the largest logit so far.
  top = jnp.maximum(out[0:1], jnp.max(logits, axis=0, keepdims=True))
  total, moment = raised(out[0:1], out[1:2], out[2:3], top)
  shifted = logits - top
  weights = jnp.exp(shifted)
  out[0:1] = top
  out[1:2] = total + jnp.sum(weights, axis=0, keepdims=True)
  out[2:3] = moment + jnp.sum(weights * shifted, axis=0, keepdims=True)
  out[3:4] += jnp.sum(jnp.where(word == targets[...], logits, 0.0), axis=0, keepdims=True)


def _hidden_kernel(hidden, matrix, targets, numbers, out, *, words: int):
  """Grid (rows, words): dh [rows, d] is summed over the blocks of words."""
  j = pl.program_id(1)
  block = _within(matrix, j, words)
  gradient = _logit_gradient(hidden[...], block, targets[...], numbers[...], j)

  # The logits past the end are 0, so p = exp(−normaliser) may overflow there, and ∞ · 0 is NaN.
  if words % len(block):
    gradient = jnp.where(_positions(j, gradient.shape, 0) < words, gradient, 0.0)
  _add(out, j, _product(gradient.astype(block.dtype), block, (0, 0)))


def _matrix_kernel(hidden, matrix, targets, numbers, out, *, n: int):
  """Grid (words, rows): dW [words, d] is summed over the blocks of rows."""
  j, i = pl.program_id(0), pl.program_id(1)
  block = _within(hidden, i, n)
  gradient = _logit_gradient(block, matrix[...], targets[...], numbers[...], j)

  # The numbers of rows past the end may be anything, NaN too.
  if n % len(block):
    gradient = jnp.where(_positions(i, gradient.shape, 1) < n, gradient, 0.0)
  _add(out, i, _product(gradient.astype(block.dtype), block, (1, 0)))


def _logit_gradient(hidden, matrix, targets, numbers, j):
  """dl [words, rows] of the j-th block of words, float32."""
  normaliser, entropy, g_logprob, g_entropy = (numbers[k : k + 1] for k in range(4))
  log_p = _product(matrix, hidden, (1, 1)) - normaliser
  return logit_gradient(
    log_p, _positions(j, log_p.shape, 0) == targets, entropy, g_logprob, g_entropy
  )


def _product(a, b, axes: tuple[int, int]):
  """a · b, summed in float32 over one axis of each; float32 operands are not rounded."""
  exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jax.lax.dot_general(
    a, b, (((axes[0],), (axes[1],)), ((), ())), precision=exact, preferred_element_type=jnp.float32
  )


def _positions(index, shape, axis: int):
  """Where, in the whole array, the elements of the index-th block of this shape lie along an axis."""
  return index * shape[axis] + jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _within(block, index, length: int):
  """The index-th block of `length` rows, with zeros for what lies past the end, which may be anything, NaN too."""
  if length % block.shape[0] == 0:
    return block[...]
  return jnp.where(
    _positions(index, (block.shape[0], 1), 0) < length, block[...], jnp.zeros((), block.dtype)
  )


def _add(out, step, part):
  """Adds to a sum that stays in vector memory while the second axis of the grid runs."""

  # The first part is written, since what was there before may be anything.
  @pl.when(step == 0)
  def _():
    out[...] = part

  @pl.when(step > 0)
  def _():
    out[...] += part
