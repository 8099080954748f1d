"""The activation verbalizer (AV): a language model that reads one vector in its prompt and writes about it."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from nla_jax.arrays import Array, halved_to_one
from nla_jax.models.architectures import Architecture
from nla_jax.models.cache import Cache
from nla_jax.models.injection import ADD, EMBEDDING, REPLACE, Injection
from nla_jax.models.lora import Lora, joined
from nla_jax.models.products import einsum
from nla_jax.models.transformer import Transformer
from nla_jax.parallel import sharding

INJECT_MODES = (REPLACE, ADD)
INJECT_MAPS = ("scalar", "affine")
# The reference replaces the embedding; those who add do so after block 1, where the residual has its usual size.
INJECT_AFTER = {REPLACE: EMBEDDING, ADD: 1}


class InjectionMap(nn.Module):
  """From an activation h to what is injected: α·h/‖h‖, then a learned affine map where `affine` is set.

  Attributes:
    scale: α.
    affine: whether there is a learned map; it starts as the identity.
  """

  scale: float
  affine: bool

  @nn.compact
  def __call__(self, vectors: Float[Array, "batch d_model"]) -> Float[Array, "batch d_model"]:
    """What is injected for raw activations, in float32; a zero vector stays zero without a bias."""
    v = halved_to_one(jnp.asarray(vectors, jnp.float32))
    v = self.scale * v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    if self.affine:
      d = v.shape[-1]
      matrix = self.param("matrix", lambda key, shape: jnp.eye(*shape), (d, d))
      # The bias is learned in units of α, so that one learning rate serves models of any scale.
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
    dtype: of the operands of matrix products.
    remat: recompute blocks in the backward pass.
    lora: adapters on a frozen base; None trains every leaf.
  """

  architecture: Architecture
  scale: float
  inject_mode: str = REPLACE
  inject_map: str = "scalar"
  dtype: Any = jnp.float32
  remat: bool = False
  lora: Lora | None = None

  def setup(self):
    self.transformer = Transformer(self.architecture, None, self.dtype, self.remat, lora=self.lora)
    self.injection = InjectionMap(self.scale, self.inject_map == "affine")

  def __call__(
    self,
    before: Int[Array, " P"],
    after: Int[Array, " A"],
    vectors: Float[Array, "batch d_model"],
    response: Int[Array, "batch R"],
  ) -> Float[Array, "batch R d_model"]:
    """Hidden states that predict each token of the response.

    Args:
      before: the prompt up to the slot.
      after: the prompt from the slot on; `after[0]` is the slot.
      vectors: raw activations.
      response: answers, padded on the right.

    Returns:
      At position r the state before response token r.
    """
    tokens = jnp.concatenate([_rows(after, response.shape[0]), response[:, :-1]], axis=1)
    injection = self._injection(tokens, vectors)
    hidden = self.transformer(tokens, prefix=before, injection=injection).hidden
    return hidden[:, after.shape[0] - 1 :]

  def prefill(
    self,
    before: Int[Array, " P"],
    after: Int[Array, " A"],
    vectors: Float[Array, "batch d_model"],
    cache: Cache,
  ) -> tuple[Float[Array, "batch d_model"], Cache]:
    """The prompt's last hidden state, and the cache that holds the prompt; arguments as in `__call__`."""
    tokens = _rows(after, vectors.shape[0])
    injection = self._injection(tokens, vectors)
    output = self.transformer(tokens, prefix=before, injection=injection, cache=cache)
    return output.hidden[:, -1], output.cache

  def step(
    self, tokens: Int[Array, " batch"], cache: Cache, steering: Injection | None = None
  ) -> tuple[Float[Array, "batch d_model"], Cache]:
    """One token a row: its hidden state and the cache; `steering` acts on it where its slot is True."""
    output = self.transformer(tokens[:, None], cache=cache, injection=steering)
    return output.hidden[:, 0], output.cache

  def _injection(self, tokens, vectors) -> Injection:
    """The vectors at the first of each row's tokens."""
    first = jnp.broadcast_to(jnp.arange(tokens.shape[1]) == 0, tokens.shape)
    slot = sharding.reshard(first, "batch", None)
    mode = self.inject_mode
    return Injection(slot, self.injection(vectors), after=INJECT_AFTER[mode], mode=mode)


def _rows(after, batch: int) -> Int[Array, "batch A"]:
  return sharding.reshard(jnp.broadcast_to(after, (batch, after.shape[0])), "batch", None)


def verbalizer_params(
  transformer_params: Any, d_model: int, inject_map: str, adapters: dict | None = None
) -> dict:
  """A fresh AV around a language model's parameters, or around adapters with that model as their frozen base."""
  if adapters is None:
    params = {"transformer": transformer_params}
  else:
    params = joined({"transformer": adapters}, transformer_params)
  if inject_map == "affine":
    params["injection"] = {"matrix": jnp.eye(d_model), "bias": jnp.zeros(d_model)}
  return params
