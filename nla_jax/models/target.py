"""The target: a frozen language model whose residual stream is read after block K."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import unembedding
from nla_jax.models.products import einsum
from nla_jax.models.transformer import Transformer
from nla_jax.parallel import sharding


class Reading(NamedTuple):
  """What is read at each chosen position.

  Attributes:
    activations: [n, d_model] float32, the raw output of block K.
    next_tokens: [n, k] int32, the likeliest next tokens, most likely first, or None.
    next_logprobs: [n, k] float32, their natural-log probabilities, or None.
  """

  activations: jax.Array
  next_tokens: jax.Array | None = None
  next_logprobs: jax.Array | None = None


def read(
  params,
  tokens,
  row,
  position,
  *,
  architecture: Architecture,
  layer: int,
  top_k: int = 0,
  dtype=jnp.float32,
) -> Reading:
  """Activations at chosen positions of a right-padded batch.

  Args:
    params: the target's; without final norm and unembedding when `top_k` is 0.
    tokens: [batch, length] int32.
    row: [n] int32, which row of the batch each position is in.
    position: [n] int32, index into that row.
    architecture: of the whole target.
    layer: K, 0-based; the output of block K is `hidden_states[K + 1]` of a Hugging Face forward.
    top_k: how many next-token predictions to keep; 0 computes nothing above block K.
    dtype: of the computation.
  """
  if top_k == 0:
    model = Transformer(architecture, layer, dtype)
    return Reading(_pick(model.apply({"params": params}, tokens).hidden, row, position))
  output = Transformer(architecture, None, dtype, collect=(layer,)).apply(
    {"params": params}, tokens
  )
  logits = einsum(
    "nd,vd->nv", _pick(output.hidden, row, position), unembedding(params), dtype, "batch", None
  )
  logprobs, ids = jax.lax.top_k(jax.nn.log_softmax(logits), top_k)
  return Reading(_pick(output.residuals[0], row, position), ids.astype(jnp.int32), logprobs)


def _pick(hidden, row, position):
  """[n, d_model] float32 of hidden states [batch, length, d_model]."""
  layout = sharding.activation((None, None), (len(row), hidden.shape[-1]))
  return hidden.at[row, position].get(out_sharding=layout).astype(jnp.float32)
