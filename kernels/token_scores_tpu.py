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
from nla_jax.kernels.token_scores_rules import LEAST, logit_gradient, raised

# Of the vector memory (v5p and v7x have 64 MiB a core, v5e and v6e 128): what blocks may fill, and the compiler in all.
BLOCK_BYTES, VMEM_BYTES = 36 * 2**20, 56 * 2**20


def statistics(hidden, matrix, targets, interpret=False):
  """(top, total, moment, picked) as [4, n] float32, of hidden [n, d], matrix [words, d] of the same dtype, targets [n].

  A target outside [0, words) picks nothing: its word lies on another device.
  """
  words = len(matrix)
  targets = jnp.where((targets >= 0) & (targets < words), targets, -1)
  kernel = functools.partial(_statistics_kernel, words=words)
  return _sweep(kernel, "numbers", hidden, matrix, targets[None], interpret=interpret)


def gradients(hidden, matrix, targets, numbers, interpret=False):
  """dh [n, d] and dW [words, d], float32. numbers: (normaliser, entropy, g_logprob, g_entropy), [4, n] float32."""
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
  kept, streamed = (
    (1024, 512) if itemsize < 4 else (256, 128)
  )  # exact products unroll into long programs

  def size():
    buffers = (
      2 * d * ((kept + streamed) * itemsize + kept * 4 * gradient)
    )  # each twice, to copy while computing
    pieces = (
      3 * 2 * d * (kept + streamed) if itemsize == 4 else 0
    )  # exact products split float32 into 3 × bfloat16
    return buffers + pieces + 4 * kept * streamed * 4  # and about four float32 arrays of logits

  while size() > BLOCK_BYTES and max(kept, streamed) > 128:
    if streamed > (256 if kept > 256 else 128):
      streamed //= 2
    else:
      kept //= 2
  return kept, streamed


def _sweep(kernel, result: str, hidden, matrix, *per_row, interpret):
  """Runs a kernel over blocks of hidden [n, d], matrix [words, d], per_row arrays [k, n], and of its one result.

  The result is "numbers" [4, n], "hidden" or "matrix" (of that shape). The grid is (rows, words), for a matrix
  (words, rows): the result's block depends on the first axis only, so it stays in vector memory as the sum over the
  second.
  """
  (n, d), words, itemsize = hidden.shape, len(matrix), hidden.dtype.itemsize
  by_rows, gradient = result != "matrix", result != "numbers"
  kept, streamed = block_sizes(d, itemsize, gradient)
  tiles = lambda length: pl.cdiv(length, 128) * 128
  row_block = min(kept if by_rows else streamed, tiles(n))
  word_block = min(streamed if by_rows else kept, tiles(words))
  grid = pl.cdiv(n, row_block), pl.cdiv(words, word_block)
  turned = lambda index: index if by_rows else lambda j, i: index(i, j)
  numbers = lambda count: pl.BlockSpec((count, row_block), turned(lambda i, j: (0, i)))
  shapes = {"numbers": (4, n), "hidden": (n, d), "matrix": (words, d)}
  specs = {
    "numbers": numbers(4),
    "hidden": pl.BlockSpec((row_block, d), turned(lambda i, j: (i, 0))),
    "matrix": pl.BlockSpec((word_block, d), turned(lambda i, j: (j, 0))),
  }
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


def _statistics_kernel(hidden, matrix, targets, out, *, words: int):
  """Grid (rows, words): `out` [4, rows] gathers what the blocks of words say."""
  j = pl.program_id(1)

  @pl.when(j == 0)
  def _():
    out[0:1] = jnp.full_like(out[0:1], LEAST)
    out[1:4] = jnp.zeros_like(out[1:4])

  logits = _product(matrix[...], hidden[...], (1, 1))  # [words, rows]
  word = _positions(j, logits.shape, 0)
  if words % len(logits):
    logits = jnp.where(word < words, logits, LEAST)
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
  if words % len(block):
    gradient = jnp.where(_positions(j, gradient.shape, 0) < words, gradient, 0.0)
  _add(out, j, _product(gradient.astype(block.dtype), block, (0, 0)))


def _matrix_kernel(hidden, matrix, targets, numbers, out, *, n: int):
  """Grid (words, rows): dW [words, d] is summed over the blocks of rows."""
  j, i = pl.program_id(0), pl.program_id(1)
  block = _within(hidden, i, n)
  gradient = _logit_gradient(block, matrix[...], targets[...], numbers[...], j)
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
  @pl.when(step == 0)
  def _():
    out[...] = part

  @pl.when(step > 0)
  def _():
    out[...] += part
