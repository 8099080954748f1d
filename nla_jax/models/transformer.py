"""One decoder for every family: a linen module whose blocks are scanned over layer-stacked parameters.

The forward knows three things that an NLA needs and a plain language model does not: it can stop after a block,
it takes vectors to put at chosen positions as an input, and it takes a prompt prefix that all rows share and
computes it once. Prefix and rows go through each block together; the rows attend to the prefix's keys and values,
so the result (and its gradient) equals that of the unshared forward.

Parameter tree: see `init_params`. Shapes in comments: [batch, length, d_model], P prefix tokens, T cached tokens.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nla_jax.models.architectures import Architecture
from nla_jax.models.attention import attend, band_mask, rotary_tables, rotate
from nla_jax.models.products import einsum, from_bits
from nla_jax.parallel import sharding

INIT = nn.initializers.normal(0.02)


class Injection(NamedTuple):
  """Vectors for one position of each row.

  Attributes:
    slot: [batch, length] bool, True exactly once a row.
    vectors: [batch, d_model]; in mode `replace` what the embedding becomes, in mode `add` a direction.
  """

  slot: jax.Array
  vectors: jax.Array


class Cache(NamedTuple):
  """Keys and values of the tokens seen so far, for decoding.

  Attributes:
    keys: [n_layers, batch, T, n_kv_heads, head_dim], rotated.
    values: the same shape.
    filled: [] int32, tokens written so far, between 0 and T.
    valid: [batch, T] bool, False at padding.
    prefix_keys: [n_layers, P, n_kv_heads, head_dim] of the shared prefix, or None.
    prefix_values: the same shape, or None.
  """

  keys: jax.Array
  values: jax.Array
  filled: jax.Array
  valid: jax.Array
  prefix_keys: jax.Array | None = None
  prefix_values: jax.Array | None = None


class Output(NamedTuple):
  """What a forward returns.

  Attributes:
    hidden: [batch, length, d_model]; after the final norm, or the raw residual when stopped early.
    residuals: [len(collect), batch, length, d_model], outputs of the blocks asked for, or None.
    cache: the cache with this call's tokens written, or None.
  """

  hidden: jax.Array
  residuals: jax.Array | None
  cache: Cache | None


class _Layer(NamedTuple):
  """What differs from layer to layer besides parameters: its index, its kind (0 global, 1 local), cached prefix."""

  index: jax.Array
  kind: jax.Array
  prefix_keys: jax.Array | None
  prefix_values: jax.Array | None


class _Context(NamedTuple):
  """What all layers share. Tables are stacked by layer kind: rotary [kinds, …, head_dim], masks [kinds, …]."""

  rotary: tuple[jax.Array, jax.Array]
  mask: jax.Array  # [kinds, batch, length, T]
  prefix_rotary: tuple[jax.Array, jax.Array] | None
  prefix_mask: jax.Array | None  # [kinds, 1, P, P]
  cross_mask: jax.Array | None  # [kinds, batch, length, P]
  injection: Injection | None
  filled: jax.Array | None


class _State(NamedTuple):
  """The scan's carry: the rows' residual, the prefix's residual [1, P, d_model], the cache, collected residuals."""

  x: jax.Array
  prefix: jax.Array | None
  keys: jax.Array | None
  values: jax.Array | None
  residuals: jax.Array | None


def rms_norm(x, weight, eps: float, offset: float = 0.0):
  """x / √(mean(x²) + eps) · (offset + weight), in float32, returned in x's dtype."""
  full = x.astype(jnp.float32)
  scale = jax.lax.rsqrt(jnp.mean(full * full, axis=-1, keepdims=True) + eps)
  return (full * scale * (offset + weight.astype(jnp.float32))).astype(x.dtype)


class Block(nn.Module):
  """Attention and gated MLP, each added to the residual stream."""

  architecture: Architecture
  dtype: Any
  inject_after: int | None
  collect: tuple[int, ...]

  def setup(self):
    a = self.architecture
    ones = nn.initializers.zeros if a.norm_offset else nn.initializers.ones
    zeros = nn.initializers.zeros
    table = {
      "attention_norm": (ones, (a.d_model,)),
      "query": (INIT, (a.d_model, a.n_heads, a.head_dim)),
      "key": (INIT, (a.d_model, a.n_kv_heads, a.head_dim)),
      "value": (INIT, (a.d_model, a.n_kv_heads, a.head_dim)),
      "output": (INIT, (a.n_heads, a.head_dim, a.d_model)),
      "mlp_norm": (ones, (a.d_model,)),
      "gate": (INIT, (a.d_model, a.d_ff)),
      "up": (INIT, (a.d_model, a.d_ff)),
      "down": (INIT, (a.d_ff, a.d_model)),
    }
    if a.attention_bias:
      table |= {
        "query_bias": (zeros, (a.n_heads, a.head_dim)),
        "key_bias": (zeros, (a.n_kv_heads, a.head_dim)),
        "value_bias": (zeros, (a.n_kv_heads, a.head_dim)),
      }
    if a.qk_norm:
      table |= {"query_norm": (ones, (a.head_dim,)), "key_norm": (ones, (a.head_dim,))}
    if a.sandwich_norm:
      table |= {"post_attention_norm": (ones, (a.d_model,)), "post_mlp_norm": (ones, (a.d_model,))}
    self.weights = {name: self.param(name, *entry) for name, entry in table.items()}

  def __call__(self, state: _State, layer: _Layer, context: _Context):
    a = self.architecture
    pick = lambda table: table[0] if table.shape[0] == 1 else table[layer.kind]
    scale = a.head_dim**-0.5 if a.query_scale is None else a.query_scale
    sources = []

    prefix = state.prefix
    prefix_keys, prefix_values = layer.prefix_keys, layer.prefix_values
    if prefix is not None:
      q, k, v = self._project(prefix, *map(pick, context.prefix_rotary))
      prefix = self._finish(
        prefix, attend(q, [(k, v, pick(context.prefix_mask))], scale, self.dtype)
      )
      prefix_keys, prefix_values = k[0], v[0]
    if prefix_keys is not None:
      sources.append((prefix_keys, prefix_values, pick(context.cross_mask)))

    q, k, v = self._project(state.x, *map(pick, context.rotary))
    keys, values = state.keys, state.values
    if keys is not None:
      start = (layer.index, 0, context.filled, 0, 0)
      keys = jax.lax.dynamic_update_slice(keys, k[None].astype(keys.dtype), start)
      values = jax.lax.dynamic_update_slice(values, v[None].astype(values.dtype), start)
      k, v = keys[layer.index], values[layer.index]
    sources.append((k, v, pick(context.mask)))
    x = self._finish(state.x, attend(q, sources, scale, self.dtype))

    if self.inject_after is not None and context.injection is not None:
      x = jnp.where(layer.index == self.inject_after, _add(x, context.injection), x)
    residuals = state.residuals
    if residuals is not None:
      wanted = jnp.array(self.collect) == layer.index
      residuals = jnp.where(wanted[:, None, None, None], x[None], residuals)
    kept = (
      (prefix_keys, prefix_values)
      if state.prefix is not None and keys is not None
      else (None, None)
    )
    return _State(x, prefix, keys, values, residuals), kept

  def _project(self, x, cos, sin):
    """Rotated queries, keys and values: [batch, length, heads, head_dim]."""
    a, w = self.architecture, self.weights
    h = rms_norm(x, w["attention_norm"], a.rms_eps, a.norm_offset)
    q, k, v = (
      einsum("bsd,dhk->bshk", h, w[name], self.dtype, "batch", None, "heads", None)
      for name in ("query", "key", "value")
    )
    if a.attention_bias:
      q, k, v = (y + w[name] for y, name in ((q, "query_bias"), (k, "key_bias"), (v, "value_bias")))
    if a.qk_norm:
      q = rms_norm(q, w["query_norm"], a.rms_eps, a.norm_offset)
      k = rms_norm(k, w["key_norm"], a.rms_eps, a.norm_offset)
    return rotate(q, cos, sin), rotate(k, cos, sin), v

  def _finish(self, x, attended):
    """Attention's output projection and the MLP, each added to the residual stream `x`."""
    a, w = self.architecture, self.weights
    norm = lambda y, name: rms_norm(y, w[name], a.rms_eps, a.norm_offset)
    product = lambda form, y, name, *axes: einsum(
      form, y, w[name], self.dtype, "batch", None, *axes
    )
    y = product("bshk,hkd->bsd", attended, "output", None)
    x = x + (norm(y, "post_attention_norm") if a.sandwich_norm else y)
    h = norm(x, "mlp_norm")
    gate, up = (
      product("bsd,df->bsf", h, "gate", "hidden"),
      product("bsd,df->bsf", h, "up", "hidden"),
    )
    gate = nn.silu(gate) if a.activation == "silu" else nn.gelu(gate, approximate=True)
    y = product("bsf,fd->bsd", gate * up, "down", None)
    return x + (norm(y, "post_mlp_norm") if a.sandwich_norm else y)


def _add(x, injection: Injection):
  """Norm-matched addition at the slot: the vector's direction, as long as the residual it is added to."""
  full = x.astype(jnp.float32)
  length = jnp.sqrt(jnp.sum(full * full, axis=-1, keepdims=True) + 1e-12)
  v = injection.vectors.astype(jnp.float32)
  v = v / jnp.sqrt(jnp.sum(v * v, axis=-1, keepdims=True) + 1e-12)
  return jnp.where(injection.slot[..., None], full + length * v[:, None], full).astype(x.dtype)


class Transformer(nn.Module):
  """A decoder-only transformer.

  Attributes:
    architecture: the family's values.
    stop_layer: compute blocks 0..stop_layer and return the raw residual, with no final norm; None for all.
    dtype: of the operands of matrix products; the residual stream, norms and softmax are float32.
    remat: recompute each block in the backward pass.
    inject_mode: `replace` (at the embedding) or `add` (norm-matched, after block 1).
    collect: indices of blocks whose output residual is returned.
  """

  architecture: Architecture
  stop_layer: int | None = None
  dtype: Any = jnp.float32
  remat: bool = False
  inject_mode: str = "replace"
  collect: tuple[int, ...] = ()

  @property
  def depth(self) -> int:
    return self.architecture.n_layers if self.stop_layer is None else self.stop_layer + 1

  @nn.compact
  def __call__(
    self,
    tokens,
    *,
    prefix=None,
    injection: Injection | None = None,
    valid=None,
    cache: Cache | None = None,
  ) -> Output:
    """Args:
    tokens: [batch, length] int32.
    prefix: [P] int32 tokens that every row begins with, computed once; not together with padding on the left.
    injection: vectors to put into `tokens`' positions (never into the prefix).
    valid: [batch, length] bool, False at padding (either side); None means no padding.
    cache: from `empty_cache` or an earlier call; `tokens` follow what it holds.
    """
    a = self.architecture
    embedding = self.param("embedding", INIT, (a.vocab_size, a.d_model))
    x = self._embed(embedding, tokens)
    if injection is not None and self.inject_mode == "replace":
      x = jnp.where(injection.slot[..., None], injection.vectors.astype(x.dtype)[:, None], x)
    prefix_x = None if prefix is None else self._embed(embedding, prefix[None])

    context = self._context(tokens, prefix, valid, cache, injection)
    kinds = (
      jnp.zeros(self.depth, jnp.int32)
      if a.windows is None
      else jnp.array([int(w > 0) for w in a.windows[: self.depth]], jnp.int32)
    )
    cached_prefix = (None, None) if cache is None else (cache.prefix_keys, cache.prefix_values)
    layers = _Layer(jnp.arange(self.depth), kinds, *cached_prefix)
    residuals = (
      sharding.reshard(jnp.zeros((len(self.collect), *x.shape), x.dtype), None, "batch", None, None)
      if self.collect
      else None
    )
    state = _State(
      x, prefix_x, *((None, None) if cache is None else (cache.keys, cache.values)), residuals
    )

    block = nn.remat(Block, prevent_cse=False) if self.remat else Block
    scan = nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=self.depth,
      in_axes=(0, nn.broadcast),
      out_axes=0,
    )
    inject_after = 1 if self.inject_mode == "add" else None
    layers_of_blocks = scan(a, self.dtype, inject_after, self.collect, name="layers")
    state, (prefix_keys, prefix_values) = layers_of_blocks(state, layers, context)

    hidden = state.x
    if self.stop_layer is None:
      ones = nn.initializers.zeros if a.norm_offset else nn.initializers.ones
      hidden = rms_norm(
        hidden, self.param("final_norm", ones, (a.d_model,)), a.rms_eps, a.norm_offset
      )
      if not a.tied:
        self.param("unembedding", INIT, (a.vocab_size, a.d_model))
    if cache is not None:
      if prefix is None:
        prefix_keys, prefix_values = cached_prefix
      cache = Cache(
        state.keys,
        state.values,
        cache.filled + tokens.shape[1],
        self._valid_after(tokens, valid, cache),
        prefix_keys,
        prefix_values,
      )
    return Output(hidden, state.residuals, cache)

  def _embed(self, embedding, tokens):
    layout = sharding.activation(("batch", None, None), (*tokens.shape, embedding.shape[1]))
    x = from_bits(sharding.unshard(embedding).at[tokens].get(out_sharding=layout)).astype(
      jnp.float32
    )
    return x * self.architecture.embedding_scale

  @staticmethod
  def _valid_after(tokens, valid, cache: Cache):
    now = jnp.ones(tokens.shape, bool) if valid is None else valid
    return jax.lax.dynamic_update_slice(
      cache.valid, sharding.reshard(now, "batch", None), (0, cache.filled)
    )

  def _context(self, tokens, prefix, valid, cache, injection) -> _Context:
    """Rotary tables and masks, once for all layers. Padding takes no position: positions count valid tokens."""
    a = self.architecture
    windows = (0,) if a.windows is None else (0, max(a.windows))
    batch, length = tokens.shape
    now = jnp.ones((1 if cache is None else batch, length), bool) if valid is None else valid
    shared = 0
    if prefix is not None:
      shared = prefix.shape[0]
    elif cache is not None and cache.prefix_keys is not None:
      shared = cache.prefix_keys.shape[1]

    if cache is None:
      seen, key_valid, first = 0, now, 0
      key_positions = jnp.maximum(jnp.cumsum(now, axis=1) - 1, 0) + shared
    else:
      key_valid = self._valid_after(tokens, valid, cache)
      seen = jnp.sum(
        cache.valid & (jnp.arange(cache.valid.shape[1]) < cache.filled), axis=1, keepdims=True
      )
      first = cache.filled
      key_positions = jnp.maximum(jnp.cumsum(key_valid, axis=1) - 1, 0) + shared
    positions = jnp.maximum(jnp.cumsum(now, axis=1) - 1, 0) + seen + shared  # [batch or 1, length]

    rotary = lambda p: rotary_tables(a, p)
    order = (
      first + jnp.arange(length)[:, None] >= jnp.arange(key_valid.shape[1])[None, :]
    )  # [length, T]
    mask = jnp.stack(
      [order & key_valid[:, None, :] & band_mask(positions, key_positions, w) for w in windows]
    )
    prefix_rotary = prefix_mask = cross_mask = None
    if shared:
      where = jnp.arange(shared)[None]
      cross_mask = jnp.stack([band_mask(positions, where, w) for w in windows])
      if prefix is not None:
        prefix_rotary = rotary(where)
        causal = where[0][:, None] >= where[0][None, :]
        prefix_mask = jnp.stack([causal & band_mask(where, where, w) for w in windows])
    return _Context(
      rotary(positions),
      mask,
      prefix_rotary,
      prefix_mask,
      cross_mask,
      injection,
      None if cache is None else cache.filled,
    )


def empty_cache(architecture: Architecture, batch: int, length: int, dtype=jnp.float32) -> Cache:
  """A cache for `length` tokens of each of `batch` rows (a shared prefix is held beside it, not inside)."""
  shape = (architecture.n_layers, batch, length, architecture.n_kv_heads, architecture.head_dim)
  empty = lambda: sharding.reshard(jnp.zeros(shape, dtype), None, "batch", None, "heads", None)
  return Cache(
    empty(),
    empty(),
    jnp.zeros((), jnp.int32),
    sharding.reshard(jnp.zeros((batch, length), bool), "batch", None),
  )
