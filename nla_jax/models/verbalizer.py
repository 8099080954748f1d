"""The activation verbalizer (AV): a language model that reads one vector in its prompt and writes about it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nla_jax.models.architectures import Architecture
from nla_jax.models.products import einsum
from nla_jax.models.transformer import Cache, Injection, Transformer
from nla_jax.parallel import sharding

INJECT_MODES = ("replace", "add")
INJECT_MAPS = ("scalar", "affine")


class InjectionMap(nn.Module):
  """From an activation to what is injected: α·h/‖h‖, then, where `affine`, a learned map that starts as identity."""

  scale: float
  affine: bool

  @nn.compact
  def __call__(self, vectors):
    """vectors: [batch, d_model] raw activations; a zero vector stays zero. Returns the same shape, float32."""
    v = vectors.astype(jnp.float32)
    v = self.scale * v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    if self.affine:
      d = v.shape[-1]
      matrix = self.param("matrix", lambda key, shape: jnp.eye(*shape), (d, d))
      bias = self.scale * self.param("bias", nn.initializers.zeros, (d,))
      v = einsum("bd,de->be", v, matrix, jnp.float32, "batch", None) + bias
    return v


class Verbalizer(nn.Module):
  """A decoder with the injection slot first among each sample's own tokens.

  The prompt before the slot is the same for every sample and is computed once a forward.

  Attributes:
    architecture: of the language model.
    scale: α, the norm of the injected vector.
    inject_mode: `replace` the embedding (the reference), or norm-matched `add` after block 1.
    inject_map: `scalar` (the reference) or `affine`.
    dtype: of the computation.
    remat: recompute blocks in the backward pass.
  """

  architecture: Architecture
  scale: float
  inject_mode: str = "replace"
  inject_map: str = "scalar"
  dtype: Any = jnp.float32
  remat: bool = False

  def setup(self):
    self.transformer = Transformer(
      self.architecture, None, self.dtype, self.remat, self.inject_mode
    )
    self.injection = InjectionMap(self.scale, self.inject_map == "affine")

  def __call__(self, before, after, vectors, response):
    """Hidden states that predict each token of the response.

    Args:
      before: [P] int32, the prompt up to the slot.
      after: [A] int32, the prompt from the slot on; `after[0]` is the slot.
      vectors: [batch, d_model] raw activations.
      response: [batch, R] int32, padded on the right.

    Returns:
      [batch, R, d_model]; position r is the state before response token r.
    """
    tokens = jnp.concatenate([self._rows(after, response.shape[0]), response[:, :-1]], axis=1)
    hidden = self.transformer(tokens, prefix=before, injection=self._inject(tokens, vectors)).hidden
    return hidden[:, after.shape[0] - 1 :]

  def prefill(self, before, after, vectors, cache: Cache):
    """The prompt's last hidden state [batch, d_model] and the cache that holds the prompt."""
    tokens = self._rows(after, vectors.shape[0])
    output = self.transformer(
      tokens, prefix=before, injection=self._inject(tokens, vectors), cache=cache
    )
    return output.hidden[:, -1], output.cache

  def step(self, tokens, cache: Cache):
    """One token a row, [batch] int32: its hidden state [batch, d_model] and the cache."""
    output = self.transformer(tokens[:, None], cache=cache)
    return output.hidden[:, 0], output.cache

  def _inject(self, tokens, vectors) -> Injection:
    slot = sharding.reshard(
      jnp.broadcast_to(jnp.arange(tokens.shape[1]) == 0, tokens.shape), "batch", None
    )
    return Injection(slot, self.injection(vectors))

  @staticmethod
  def _rows(after, batch: int) -> jax.Array:
    return sharding.reshard(jnp.broadcast_to(after, (batch, after.shape[0])), "batch", None)


def verbalizer_params(transformer_params, d_model: int, inject_map: str):
  """A fresh AV around a language model's parameters."""
  params = {"transformer": transformer_params}
  if inject_map == "affine":
    params["injection"] = {"matrix": jnp.eye(d_model), "bias": jnp.zeros(d_model)}
  return params
