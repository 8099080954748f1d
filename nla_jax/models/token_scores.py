"""Log-probability and entropy of chosen tokens without an array of all logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.models.products import einsum
from nla_jax.parallel import sharding

KERNELS = ("auto", "on", "off")


class TokenScores(NamedTuple):
  """Per token: log-probability of the chosen token, and entropy of the distribution (nats), each [batch, length]."""

  logprob: jax.Array
  entropy: jax.Array


def _kernel_device() -> str | None:
  """`tpu` or `gpu` where the mesh in context, or the default device without one, can run that form of the kernel.

  Not TPUs before v5, whose vector memory is too small, and no CPU.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
  unable = device.platform == "cpu" or device.device_kind.startswith(("TPU v2", "TPU v3", "TPU v4"))
  return None if unable else device.platform


def token_scores(
  hidden, matrix, targets, dtype=jnp.float32, *, chunk: int = 512, kernel: str = "auto"
) -> TokenScores:
  """Scores of chosen tokens without a [batch, length, vocabulary] array: a block or a chunk of logits lives at a time.

  Args:
    hidden: [batch, length, d_model], the state before each target.
    matrix: [vocabulary, d_model] unembedding.
    targets: [batch, length] int32.
    dtype: of the operands of the unembedding product.
    chunk: tokens whose logits exist at once on a device (or one of each row, where that is more); their backward pass
      computes them again.
    kernel: `off` takes the chunks, `auto` on TPUs from v5 on the Pallas kernel, `on` takes it on GPUs too, and
      interpreted elsewhere, which is slow.
  """
  device = _kernel_device()
  if kernel == "on" or (kernel == "auto" and device == "tpu"):
    from nla_jax.kernels.token_scores import (
      token_scores as by_kernel,  # Pallas takes most of a second to import
    )

    return TokenScores(
      *by_kernel(hidden, matrix, targets, dtype, form=device or "tpu", interpret=device is None)
    )
  batch, length, d = hidden.shape
  columns = max(
    chunk * sharding.size(sharding.BATCH) // batch, 1
  )  # of every row: each device has rows of each chunk
  chunks = -(-length // columns)
  width = -(-length // chunks)  # as even as can be
  pad = chunks * width - length
  rows = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0))).reshape(batch, chunks, width, d).swapaxes(0, 1)
  chosen = jnp.pad(targets, ((0, 0), (0, pad))).reshape(batch, chunks, width).swapaxes(0, 1)

  @jax.checkpoint
  def score(arguments):
    h, t = arguments
    logits = einsum("bsd,vd->bsv", h, matrix, dtype, "batch", None, "vocabulary")
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1)
    normaliser = jnp.log(total) + top[..., 0]
    if sharding.has_mesh():  # each device picks from its part of the vocabulary
      here = jnp.arange(logits.shape[-1]) == t[..., None]
      picked = jnp.sum(jnp.where(here, logits, 0.0), axis=-1)
    else:
      picked = jnp.take_along_axis(logits, t[..., None], axis=-1)[..., 0]
    entropy = normaliser - jnp.sum(weights * logits, axis=-1) / total
    return picked - normaliser, entropy

  logprob, entropy = jax.lax.map(score, (rows, chosen))
  unpad = lambda x: x.swapaxes(0, 1).reshape(batch, chunks * width)[:, :length]
  return TokenScores(unpad(logprob), unpad(entropy))
