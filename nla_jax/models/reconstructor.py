"""The activation reconstructor (AR): the target's first K+1 blocks and a linear head, read at the last token."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import Lora, joined
from nla_jax.models.parameters import lower_params
from nla_jax.models.products import einsum
from nla_jax.models.transformer import Transformer


class Head(nn.Module):
  """A square linear map that starts as the identity; an ordinary Linear would shrink the residual by about √3."""

  @nn.compact
  def __call__(self, x: Float[Array, "batch d_model"]) -> Float[Array, "batch d_model"]:
    d = x.shape[-1]
    weight = self.param("weight", lambda key, shape: jnp.eye(*shape), (d, d))
    # Without a bias, as in the interchange format: the transformer below can make a constant.
    return einsum("bd,de->be", x, weight, jnp.float32, "batch", None)


class Reconstructor(nn.Module):
  """Text to activation.

  Attributes:
    architecture: of the K+1 blocks kept (`architecture.lower(K + 1)`).
    dtype: of the operands of matrix products.
    remat: recompute blocks in the backward pass.
    lora: adapters on a frozen base; None trains every leaf.
  """

  architecture: Architecture
  dtype: Any = jnp.float32
  remat: bool = False
  lora: Lora | None = None

  def setup(self):
    a = self.architecture
    self.transformer = Transformer(a, a.n_layers - 1, self.dtype, self.remat, lora=self.lora)
    self.head = Head()

  def __call__(
    self,
    before: Int[Array, " Q"],
    tokens: Int[Array, "batch length"],
    lengths: Int[Array, " batch"],
  ) -> Float[Array, "batch d_model"]:
    """Reconstructions, in float32; their norms carry no meaning.

    Args:
      before: what every input begins with.
      tokens: the rest of each input, padded on the right.
      lengths: real tokens of each row, at least 1.
    """
    hidden = self.transformer(tokens, prefix=before).hidden.astype(jnp.float32)

    # The last real token is found by its position, so that padding of either length reads the same one.
    last = jnp.arange(tokens.shape[1])[None] == lengths[:, None] - 1
    return self.head(jnp.sum(jnp.where(last[..., None], hidden, 0.0), axis=1))


def reconstructor_params(
  transformer_params: dict, layer: int, adapters: dict | None = None
) -> dict:
  """A fresh AR from the target's parameters: blocks 0..layer and an identity head.

  With adapters (of these blocks) the target's tree is their frozen base as it is: the blocks above are left alone.
  """
  head = {"weight": jnp.eye(transformer_params["embedding"].shape[1])}
  if adapters is None:
    return {"transformer": lower_params(transformer_params, layer + 1), "head": head}
  return joined({"transformer": adapters, "head": head}, transformer_params)
