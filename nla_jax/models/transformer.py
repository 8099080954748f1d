"""One decoder for every family: a linen module whose blocks are scanned over layer-stacked parameters.

The forward knows three things that an NLA needs and a plain language model does not. It can stop after a block. It
takes vectors to put into the residual stream as an input (`Injection`). It takes a prompt prefix that all rows share,
and computes it once.

Parameter tree: see `nla_jax.models.parameters.init_params` and `Block.setup`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.attention import band_mask, rotary_tables
from nla_jax.models.block import INIT, Block, Context, Layer, Stream, rms_norm
from nla_jax.models.cache import Cache
from nla_jax.models.injection import EMBEDDING, Injection
from nla_jax.models.lora import Lora
from nla_jax.models.products import from_bits
from nla_jax.parallel import sharding


class Output(NamedTuple):
  """What a forward returns.

  Attributes:
    hidden: after the final norm, or the raw residual where the forward stopped early.
    residuals: outputs of the blocks that were asked for, or None.
    cache: with this call's tokens written, or None.
  """

  hidden: Float[Array, "batch length d_model"]
  residuals: Float[Array, "collected batch length d_model"] | None
  cache: Cache | None


class Transformer(nn.Module):
  """A decoder-only transformer.

  Attributes:
    architecture: the family's values.
    stop_layer: compute blocks 0..stop_layer and return the raw residual, with no final norm; None for all.
    dtype: of the operands of matrix products; the residual stream, norms and softmax are float32.
    remat: recompute each block in the backward pass.
    collect: indices of blocks whose output residual is returned.
    lora: adapters on a frozen base, whose leaves are in the collection `frozen`; it may have more blocks than are
      computed. None trains every leaf.
  """

  architecture: Architecture
  stop_layer: int | None = None
  dtype: Any = jnp.float32
  remat: bool = False
  collect: tuple[int, ...] = ()
  lora: Lora | None = None

  @property
  def depth(self) -> int:
    """How many blocks are computed."""
    return self.architecture.n_layers if self.stop_layer is None else self.stop_layer + 1

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, "batch length"],
    *,
    prefix: Int[Array, " P"] | None = None,
    injection: Injection | None = None,
    valid: Bool[Array, "batch length"] | None = None,
    cache: Cache | None = None,
  ) -> Output:
    """Hidden states of `tokens`, and what else was asked for.

    Args:
      tokens: of each row.
      prefix: tokens that every row begins with, computed once; not together with padding on the left.
      injection: vectors to put into positions of `tokens`, never into the prefix.
      valid: False at padding (either side); None means no padding.
      cache: from `empty_cache` or an earlier call; `tokens` follow what it holds.
    """
    a = self.architecture

    # 1. The embedding, and what is put into it.
    embedding = self._leaf("embedding", INIT, (a.vocab_size, a.d_model))
    x = self._embed(embedding, tokens)
    if injection is not None and injection.after == EMBEDDING:
      x = injection.apply(x)
    prefix_x = None if prefix is None else self._embed(embedding, prefix[None])

    # 2. The blocks, as one scan: unrolled they would compile three times slower.
    context = self._context(tokens, prefix, valid, cache)._replace(injection=injection)
    cached_prefix = (None, None) if cache is None else (cache.prefix_keys, cache.prefix_values)
    layers = Layer(jnp.arange(self.depth), self._kinds(), *cached_prefix)
    keys, values = (None, None) if cache is None else (cache.keys, cache.values)
    stream = Stream(x, prefix_x, keys, values, self._no_residuals(x))
    stream, prefix_cache = self._blocks()(stream, layers, context)

    # 3. The final norm, unless the forward stops below it.
    hidden = stream.x
    if self.stop_layer is None:
      ones = nn.initializers.zeros if a.norm_offset else nn.initializers.ones
      final_norm = self._leaf("final_norm", ones, (a.d_model,))
      hidden = rms_norm(hidden, final_norm, a.rms_eps, a.norm_offset)
      if not a.tied:
        self._leaf("unembedding", INIT, (a.vocab_size, a.d_model))

    # 4. The cache, with these tokens in it.
    if cache is not None:
      filled = cache.filled + tokens.shape[1]
      seen = _valid_after(tokens, valid, cache)
      kept = cached_prefix if prefix is None else prefix_cache
      cache = Cache(stream.keys, stream.values, filled, seen, *kept)
    return Output(hidden, stream.residuals, cache)

  def _leaf(self, name: str, initializer, shape: tuple[int, ...]):
    """A leaf outside of the blocks: trained, or the frozen base's."""
    if self.lora is None:
      return self.param(name, initializer, shape)
    return self.get_variable("frozen", name)

  def _embed(self, embedding, tokens):
    layout = sharding.activation(("batch", None, None), (*tokens.shape, embedding.shape[1]))
    rows = sharding.unshard(embedding).at[tokens].get(out_sharding=layout)
    return from_bits(rows).astype(jnp.float32) * self.architecture.embedding_scale

  def _kinds(self) -> Int[Array, " depth"]:
    """0 for blocks that attend to everything, 1 for those with a sliding window."""
    windows = self.architecture.windows
    if windows is None:
      return jnp.zeros(self.depth, jnp.int32)
    return jnp.array([int(window > 0) for window in windows[: self.depth]], jnp.int32)

  def _no_residuals(self, x):
    """Room for what is collected; None where nothing is."""
    if not self.collect:
      return None
    empty = jnp.zeros((len(self.collect), *x.shape), x.dtype)
    return sharding.reshard(empty, None, "batch", None, None)

  def _blocks(self):
    """The scanned blocks: a function of (stream, layers, context)."""
    block = nn.remat(Block, prevent_cse=False) if self.remat else Block
    scan = nn.scan(
      block,
      variable_axes={"params": 0},
      variable_broadcast="frozen",
      split_rngs={"params": True},
      length=self.depth,
      in_axes=(0, nn.broadcast),
      out_axes=0,
    )
    return scan(self.architecture, self.dtype, self.collect, self.lora, name="layers")

  def _context(self, tokens, prefix, valid, cache: Cache | None) -> Context:
    """Rotary tables and masks, once for all layers.

    Padding takes no position: positions count valid tokens, so rows padded on either side compute the same.
    """
    a = self.architecture
    windows = (0,) if a.windows is None else (0, max(a.windows))
    batch, length = tokens.shape
    now = jnp.ones((1 if cache is None else batch, length), bool) if valid is None else valid

    # 1. How many tokens of the prefix and of the cache lie before these.
    shared = 0
    if prefix is not None:
      shared = prefix.shape[0]
    elif cache is not None and cache.prefix_keys is not None:
      shared = cache.prefix_keys.shape[1]
    if cache is None:
      seen, key_valid, first = 0, now, 0
    else:
      key_valid, first = _valid_after(tokens, valid, cache), cache.filled
      written = jnp.arange(cache.length) < cache.filled
      seen = jnp.sum(cache.valid & written, axis=1, keepdims=True)

    # 2. Positions of queries and keys, and which of the keys come before each query.
    positions = jnp.maximum(jnp.cumsum(now, axis=1) - 1, 0) + seen + shared  # [batch or 1, length]
    key_positions = jnp.maximum(jnp.cumsum(key_valid, axis=1) - 1, 0) + shared
    queries, keys = first + jnp.arange(length), jnp.arange(key_valid.shape[1])
    causal = queries[:, None] >= keys[None, :]  # [length, T]
    visible = causal & key_valid[:, None, :]
    mask = jnp.stack([visible & band_mask(positions, key_positions, w) for w in windows])

    # 3. The prefix: seen whole by every row, but for the window.
    prefix_rotary = prefix_mask = cross_mask = None
    if shared:
      where = jnp.arange(shared)[None]
      cross_mask = jnp.stack([band_mask(positions, where, w) for w in windows])
      if prefix is not None:
        prefix_rotary = rotary_tables(a, where)
        before = where[0][:, None] >= where[0][None, :]
        prefix_mask = jnp.stack([before & band_mask(where, where, w) for w in windows])

    rotary, filled = rotary_tables(a, positions), None if cache is None else cache.filled
    return Context(rotary, mask, prefix_rotary, prefix_mask, cross_mask, None, filled)


def _valid_after(tokens, valid, cache: Cache) -> Bool[Array, "batch T"]:
  """Which of the cache's tokens are valid once these are written."""
  now = jnp.ones(tokens.shape, bool) if valid is None else valid
  return jax.lax.dynamic_update_slice(
    cache.valid, sharding.reshard(now, "batch", None), (0, cache.filled)
  )
