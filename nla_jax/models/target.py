"""The target: a frozen language model whose residual stream is read after block K."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import FROZEN, Lora
from nla_jax.models.parameters import unembedding
from nla_jax.models.products import einsum
from nla_jax.models.transformer import Transformer
from nla_jax.parallel import sharding


class Reading(NamedTuple):
  """What is read at each chosen position.

  Attributes:
    activations: the raw output of block K, in float32.
    next_tokens: the likeliest next tokens, most likely first, or None.
    next_logprobs: their natural-log probabilities, or None.
  """

  activations: Float[Array, "n d_model"]
  next_tokens: Int[Array, "n k"] | None = None
  next_logprobs: Float[Array, "n k"] | None = None


def read(
  params: Any,
  tokens: Int[Array, "batch length"],
  row: Int[Array, " n"],
  position: Int[Array, " n"],
  *,
  architecture: Architecture,
  layer: int,
  top_k: int = 0,
  dtype=jnp.float32,
) -> Reading:
  """Activations at chosen positions of a right-padded batch.

  Args:
    params: the target's; without final norm and unembedding when `top_k` is 0. Or {"base": tree} for a frozen base that
      adapters share (`lora.split`), which is read where it lies.
    tokens: of each document.
    row: which row of the batch each position is in.
    position: index into that row.
    architecture: of the whole target.
    layer: K, 0-based; the output of block K is `hidden_states[K + 1]` of a Hugging Face forward.
    top_k: how many next-token predictions to keep; 0 computes nothing above block K.
    dtype: of the operands of matrix products.
  """
  lora, variables, params = frozen_variables(params)
  if top_k == 0:
    model = Transformer(architecture, layer, dtype, lora=lora)
    return Reading(_pick(model.apply(variables, tokens).hidden, row, position))

  model = Transformer(architecture, None, dtype, collect=(layer,), lora=lora)
  output = model.apply(variables, tokens)
  # Only the chosen positions are unembedded: logits of all tokens would be larger than the model.
  last = _pick(output.hidden, row, position)
  logits = einsum("nd,vd->nv", last, unembedding(params), dtype, "batch", None)
  logprobs, ids = jax.lax.top_k(jax.nn.log_softmax(logits), top_k)
  return Reading(_pick(output.residuals[0], row, position), ids.astype(jnp.int32), logprobs)


def frozen_variables(params: Any) -> tuple[Lora | None, dict, Any]:
  """How a frozen model's parameters are read: the modules' `lora`, what their `apply` takes, and the model's tree.

  Args:
    params: the model's tree, or {"base": tree} for a frozen base that adapters share.
  """
  if "base" not in params:
    return None, {"params": params}, params
  base = params["base"]
  return FROZEN, {"params": {}, "frozen": base}, base


def _pick(hidden, row, position) -> Float[Array, "n d_model"]:
  """Hidden states [batch, length, d_model] at the positions, in float32."""
  layout = sharding.activation((None, None), (len(row), hidden.shape[-1]))
  return hidden.at[row, position].get(out_sharding=layout).astype(jnp.float32)
