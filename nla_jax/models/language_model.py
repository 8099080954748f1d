"""The target as a model that continues text, steered or not: what decoding needs of it."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.cache import Cache
from nla_jax.models.injection import Injection
from nla_jax.models.lora import Lora
from nla_jax.models.transformer import Transformer


class LanguageModel(nn.Module):
  """A decoder that takes a prompt in chunks and then a token at a time.

  Its parameters are {"transformer": tree}, like the AV's, so that decoding finds both in one place.

  Attributes:
    architecture: of the whole model.
    dtype: of the operands of matrix products.
    lora: `FROZEN` where the tree is a base that adapters share; None where it is the model's own.
  """

  architecture: Architecture
  dtype: Any = jnp.float32
  lora: Lora | None = None

  def setup(self):
    self.transformer = Transformer(self.architecture, None, self.dtype, lora=self.lora)

  def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length d_model"]:
    """Hidden states of whole texts, padded on the right, as training reads them."""
    return self.transformer(tokens).hidden

  def prefill(
    self,
    tokens: Int[Array, "batch length"],
    valid: Bool[Array, "batch length"],
    cache: Cache,
    injection: Injection | None = None,
  ) -> tuple[Float[Array, "batch d_model"], Cache]:
    """The hidden state after the last of `tokens`, and the cache with them behind what it held.

    Args:
      tokens: one chunk of each prompt.
      valid: False at padding, which stands on the left.
      cache: what came before the chunk.
      injection: vectors for positions of this chunk, or None.
    """
    output = self.transformer(tokens, valid=valid, cache=cache, injection=injection)
    return output.hidden[:, -1], output.cache

  def step(
    self, tokens: Int[Array, " batch"], cache: Cache, steering: Injection | None = None
  ) -> tuple[Float[Array, "batch d_model"], Cache]:
    """One token a row: its hidden state and the cache; `steering` acts on it where its slot is True."""
    output = self.transformer(tokens[:, None], cache=cache, injection=steering)
    return output.hidden[:, 0], output.cache
