"""Log-probability and entropy of chosen tokens without an array of all logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from nla_jax.arrays import Array
from nla_jax.models.products import einsum
from nla_jax.parallel import sharding

KERNELS = ("auto", "on", "off")
_TOO_SMALL = ("TPU v2", "TPU v3", "TPU v4")  # their vector memory does not hold the kernel's blocks


class TokenScores(NamedTuple):
  """Scores of each token, in nats.

  Attributes:
    logprob: log-probability of the chosen token.
    entropy: of the distribution that it was chosen from.
  """

  logprob: Float[Array, "batch length"]
  entropy: Float[Array, "batch length"]


def token_scores(
  hidden: Float[Array, "batch length d_model"],
  matrix: Shaped[Array, "vocabulary d_model"],
  targets: Int[Array, "batch length"],
  dtype=jnp.float32,
  *,
  chunk: int = 512,
  kernel: str = "auto",
) -> TokenScores:
  """Scores of chosen tokens; a block or a chunk of logits exists at a time.

  Args:
    hidden: the state before each target.
    matrix: the unembedding, perhaps packed (`products.as_bits`); then it has no gradient.
    targets: the chosen tokens.
    dtype: of the operands of the unembedding product.
    chunk: tokens whose logits exist at once on a device, or one of each row where that is more; the backward pass
      computes them again.
    kernel: `off` takes the chunks. `auto` takes the Pallas kernel on TPUs from v5 on. `on` takes it on GPUs too, and
      interpreted elsewhere, which is slow.
  """
  device = _kernel_device()
  if kernel == "on" or (kernel == "auto" and device == "tpu"):
    # Pallas takes most of a second to import, and most runs never need it.
    from nla_jax.kernels.token_scores import token_scores as by_kernel

    form, interpret = device or "tpu", device is None
    scores = by_kernel(hidden, matrix, targets, dtype, form=form, interpret=interpret)
    return TokenScores(*scores)
  return _in_chunks(hidden, matrix, targets, dtype, chunk)


def _kernel_device() -> str | None:
  """`tpu` or `gpu` where the mesh in context, or the default device without one, can run the kernel; else None."""
  device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
  unable = device.platform == "cpu" or device.device_kind.startswith(_TOO_SMALL)
  return None if unable else device.platform


def _in_chunks(hidden, matrix, targets, dtype, chunk: int) -> TokenScores:
  """The scores by a map over columns, so that each device has rows of each chunk."""
  batch, length, d = hidden.shape
  columns = max(chunk * sharding.size(sharding.BATCH) // batch, 1)
  chunks = -(-length // columns)
  width = -(-length // chunks)  # chunks as even as can be
  pad = chunks * width - length
  rows = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0))).reshape(batch, chunks, width, d).swapaxes(0, 1)
  chosen = jnp.pad(targets, ((0, 0), (0, pad))).reshape(batch, chunks, width).swapaxes(0, 1)

  # Recomputed in the backward pass: kept, the chunks' logits would together be the array that must not exist.
  @jax.checkpoint
  def score(arguments):
    return _score(*arguments, matrix, dtype)

  def joined(x):
    return x.swapaxes(0, 1).reshape(batch, chunks * width)[:, :length]

  logprob, entropy = jax.lax.map(score, (rows, chosen))  # [chunks, batch, width]
  return TokenScores(joined(logprob), joined(entropy))


def _score(hidden, targets, matrix, dtype):
  """Log-probability and entropy [batch, width] of one chunk."""
  logits = einsum("bsd,vd->bsv", hidden, matrix, dtype, "batch", None, "vocabulary")
  top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  weights = jnp.exp(logits - top)
  total = jnp.sum(weights, axis=-1)
  normaliser = jnp.log(total) + top[..., 0]

  if sharding.has_mesh():  # each device picks from its part of the vocabulary
    here = jnp.arange(logits.shape[-1]) == targets[..., None]
    picked = jnp.sum(jnp.where(here, logits, 0.0), axis=-1)
  else:
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  entropy = normaliser - jnp.sum(weights * logits, axis=-1) / total
  return picked - normaliser, entropy
