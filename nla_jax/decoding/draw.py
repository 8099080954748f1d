"""Drawing tokens from a model's own distribution.

Temperature is the only change to it: no top-p, top-k or repetition penalty, whatever a checkpoint's generation_config
says. Each sample has its own random stream, folded from its id, so a draw depends neither on the batch it is in, nor on
the size of the cache, nor on where it runs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from nla_jax.arrays import Array

_WIDTH = 256  # entries of the vocabulary whose weights are summed in the first level


def draw(
  logits: Float[Array, "batch vocabulary"], uniform: Float[Array, " batch"]
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
  """One categorical draw a row, by inverting the distribution function in two levels.

  One uniform number a row instead of one Gumbel a vocabulary entry: at a vocabulary of 49k and batch 64 the random
  bits alone would cost as much as the unembedding.

  Args:
    logits: of the next token.
    uniform: in [0, 1).

  Returns:
    The tokens and their log-probabilities.
  """
  batch, vocabulary = logits.shape
  blocks = -(-vocabulary // _WIDTH)
  top = jnp.max(logits, axis=-1, keepdims=True)
  weights = jnp.exp(logits - top)
  weights = jnp.pad(weights, ((0, 0), (0, blocks * _WIDTH - vocabulary)))
  weights = weights.reshape(batch, blocks, _WIDTH)

  # 1. The block in which the uniform number falls.
  before = jnp.cumsum(jnp.sum(weights, axis=-1), axis=-1)  # [batch, blocks]
  total = before[:, -1]
  level = uniform * total
  block = jnp.minimum(jnp.sum(before <= level[:, None], axis=-1), blocks - 1)
  previous = _at(before, jnp.maximum(block - 1, 0))
  inside = level - jnp.where(block > 0, previous, 0.0)

  # 2. The entry inside the block.
  row = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]  # [batch, width]
  running = jnp.cumsum(row, axis=-1)
  # Rounding may leave `inside` at or above the block's last sum: the last entry with weight is then meant.
  last = _WIDTH - 1 - jnp.argmax(row[:, ::-1] > 0, axis=-1)
  offset = jnp.minimum(jnp.sum(running <= inside[:, None], axis=-1), last)
  token = (block * _WIDTH + offset).astype(jnp.int32)
  return token, jnp.log(_at(row, offset)) - jnp.log(total)


def likeliest(
  logits: Float[Array, "batch vocabulary"],
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
  """The likeliest token of each row and its log-probability."""
  token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  return token, _at(jax.nn.log_softmax(logits), token)


def streams(key: jax.Array, ids: Int[Array, " rows"]) -> jax.Array:
  """The random stream of each sample, by its id."""
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)


def uniforms(keys: jax.Array, step: Int[Array, ""] | int) -> Float[Array, " rows"]:
  """The number in [0, 1) that each stream gives at a step."""
  return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, step)))(keys)


def _at(x, index):
  """Entry `index` [batch] of each row of x [batch, n]."""
  return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]
