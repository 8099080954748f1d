"""One block of the decoder: attention and a gated MLP, each added to the residual stream.

`Block` is the body of the scan over layers. Rows and the prefix that they share go through it together: the rows attend
to the prefix's keys and values, so the result, and its gradient, equal those of the unshared forward.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture
from nla_jax.models.attention import attend, rotate
from nla_jax.models.injection import EMBEDDING, Injection
from nla_jax.models.lora import Lora, adapted, entries, names
from nla_jax.models.products import FrozenLayer, einsum

INIT = nn.initializers.normal(0.02)
_NO_PREFIX = (None, None)


class Layer(NamedTuple):
  """What differs from layer to layer besides parameters.

  Attributes:
    index: of the block, 0-based.
    kind: 0 where it attends to everything, 1 where it has a sliding window.
    prefix_keys: of the shared prefix, cached by an earlier call, or None.
    prefix_values: likewise.
  """

  index: Int[Array, "..."]
  kind: Int[Array, "..."]
  prefix_keys: Float[Array, "... P kv_heads head_dim"] | None
  prefix_values: Float[Array, "... P kv_heads head_dim"] | None


class Context(NamedTuple):
  """What all layers share; tables are stacked by the layers' kinds.

  Attributes:
    rotary: cosines and sines of the rows' positions.
    mask: which keys each query of the rows sees.
    prefix_rotary: of the prefix's positions, or None.
    prefix_mask: which keys of the prefix each of its queries sees, or None.
    cross_mask: which keys of the prefix the rows' queries see, or None.
    injection: vectors that go into the residual stream, or None.
    filled: tokens in the cache before this call, or None without one.
  """

  rotary: tuple[jax.Array, jax.Array]
  mask: Bool[Array, "kinds rows length T"]
  prefix_rotary: tuple[jax.Array, jax.Array] | None
  prefix_mask: Bool[Array, "kinds 1 P P"] | None
  cross_mask: Bool[Array, "kinds rows length P"] | None
  injection: Injection | None
  filled: Int[Array, ""] | None


class Stream(NamedTuple):
  """The scan's carry.

  Attributes:
    x: the rows' residual.
    prefix: the shared prefix's residual, or None.
    keys: of the cache, all layers, or None.
    values: likewise.
    residuals: outputs of the blocks that are collected, or None.
  """

  x: Float[Array, "batch length d_model"]
  prefix: Float[Array, "1 P d_model"] | None
  keys: Float[Array, "layers batch T kv_heads head_dim"] | None
  values: Float[Array, "layers batch T kv_heads head_dim"] | None
  residuals: Float[Array, "collected batch length d_model"] | None


def rms_norm(
  x: Float[Array, "*rows d"], weight: Float[Array, " d"], eps: float, offset: float = 0.0
) -> Float[Array, "*rows d"]:
  """x / √(mean(x²) + eps) · (offset + weight), computed in float32 and returned in x's dtype."""
  full = x.astype(jnp.float32)
  scale = jax.lax.rsqrt(jnp.mean(full * full, axis=-1, keepdims=True) + eps)
  return (full * scale * (offset + weight.astype(jnp.float32))).astype(x.dtype)


class Block(nn.Module):
  """Attention and gated MLP of one layer.

  Attributes:
    architecture: the family's values.
    dtype: of the operands of matrix products.
    collect: indices of the blocks whose output is kept.
    lora: of the adapters; the other leaves are then the base's, in the collection `frozen`. None trains every leaf.
  """

  architecture: Architecture
  dtype: Any
  collect: tuple[int, ...]
  lora: Lora | None = None

  def setup(self):
    table = self._table()
    if self.lora is None:
      self.trained = {name: self.param(name, *entry) for name, entry in table.items()}
      return

    adapters = entries(self.architecture, self.lora)
    self.trained = {name: self.param(name, *entry) for name, entry in adapters.items()}
    self.frozen = {name: self.get_variable("frozen", name) for name in table}

  def _table(self) -> dict[str, tuple]:
    """{name: (initializer, shape)} of the model's own leaves."""
    a = self.architecture
    # Gemma multiplies by 1 + w, so that its fresh norms are zeros.
    ones = nn.initializers.zeros if a.norm_offset else nn.initializers.ones
    zeros = nn.initializers.zeros
    shapes = {name: (*inputs, *outputs) for name, (inputs, outputs) in a.matrices.items()}
    attention, mlp = ("query", "key", "value", "output"), ("gate", "up", "down")
    # A random model's numbers depend on this order: linen counts the draws of a module.
    table = {
      "attention_norm": (ones, (a.d_model,)),
      **{name: (INIT, shapes[name]) for name in attention},
      "mlp_norm": (ones, (a.d_model,)),
      **{name: (INIT, shapes[name]) for name in mlp},
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
    return table

  def _weights(self, index) -> Mapping[str, Any]:
    """This layer's leaves. Of a frozen base, matrices stay in their stacks until a product takes them."""
    if self.lora is None:
      return self.trained
    matrices = self.architecture.matrices
    layers = {name: FrozenLayer(stack, index) for name, stack in self.frozen.items()}
    own = {name: layer if name in matrices else layer.take() for name, layer in layers.items()}
    return {**own, **self.trained}

  def __call__(self, stream: Stream, layer: Layer, context: Context):
    """The stream after this block, and the keys and values of the prefix where a cache shall keep them."""

    def of_kind(table):
      return table[0] if table.shape[0] == 1 else table[layer.kind]

    weights = self._weights(layer.index)

    # 1. The shared prefix, once for all rows.
    prefix, shared = stream.prefix, (layer.prefix_keys, layer.prefix_values)
    if prefix is not None:
      q, k, v = self._project(weights, prefix, *map(of_kind, context.prefix_rotary))
      attended = self._attend(q, [(k, v, of_kind(context.prefix_mask))])
      prefix, shared = self._finish(weights, prefix, attended), (k[0], v[0])
    sources = [] if shared[0] is None else [(*shared, of_kind(context.cross_mask))]

    # 2. The rows, which attend to the prefix, to what the cache holds, and to themselves.
    q, k, v = self._project(weights, stream.x, *map(of_kind, context.rotary))
    keys, values = stream.keys, stream.values
    if keys is not None:
      keys, values = (
        _written(cached, new, layer, context) for cached, new in ((keys, k), (values, v))
      )
      k, v = keys[layer.index], values[layer.index]
    sources.append((k, v, of_kind(context.mask)))
    x = self._finish(weights, stream.x, self._attend(q, sources))

    # 3. What is put into this block's output, and what is kept of it.
    injection = context.injection
    if injection is not None and injection.after != EMBEDDING:
      x = jnp.where(layer.index == injection.after, injection.apply(x), x)
    residuals = stream.residuals
    if residuals is not None:
      wanted = jnp.array(self.collect) == layer.index
      residuals = jnp.where(wanted[:, None, None, None], x[None], residuals)
    kept = shared if stream.prefix is not None and keys is not None else _NO_PREFIX
    return Stream(x, prefix, keys, values, residuals), kept

  def _attend(self, q, sources):
    a = self.architecture
    scale = a.head_dim**-0.5 if a.query_scale is None else a.query_scale
    return attend(q, sources, scale, self.dtype)

  def _product(self, w, form: str, x, name: str, *axes):
    """x times a matrix of the block, and its adapter's product where it has one."""
    axes = ("batch", None, *axes)
    if self.lora is None or name not in self.lora.targets:
      return einsum(form, x, w[name], self.dtype, *axes)
    a, b = (w[one] for one in names(name))
    return adapted(form, x, w[name], a, b, self.lora.scale, self.dtype, *axes)

  def _project(self, w, x, cos, sin):
    """Rotated queries, keys and values: [batch, length, heads, head_dim]."""
    a = self.architecture
    h = rms_norm(x, w["attention_norm"], a.rms_eps, a.norm_offset)
    q, k, v = (
      self._product(w, "bsd,dhk->bshk", h, name, "heads", None)
      for name in ("query", "key", "value")
    )
    if a.attention_bias:
      q, k, v = q + w["query_bias"], k + w["key_bias"], v + w["value_bias"]
    if a.qk_norm:
      q = rms_norm(q, w["query_norm"], a.rms_eps, a.norm_offset)
      k = rms_norm(k, w["key_norm"], a.rms_eps, a.norm_offset)
    return rotate(q, cos, sin), rotate(k, cos, sin), v

  def _finish(self, w, x, attended):
    """Attention's output projection and the MLP, each added to the residual stream `x`."""
    a = self.architecture

    def norm(y, name: str):
      return rms_norm(y, w[name], a.rms_eps, a.norm_offset)

    y = self._product(w, "bshk,hkd->bsd", attended, "output", None)
    x = x + (norm(y, "post_attention_norm") if a.sandwich_norm else y)

    h = norm(x, "mlp_norm")
    gate = self._product(w, "bsd,df->bsf", h, "gate", "hidden")
    up = self._product(w, "bsd,df->bsf", h, "up", "hidden")
    gate = nn.silu(gate) if a.activation == "silu" else nn.gelu(gate, approximate=True)
    y = self._product(w, "bsf,fd->bsd", gate * up, "down", None)
    return x + (norm(y, "post_mlp_norm") if a.sandwich_norm else y)


def _written(cached, new, layer: Layer, context: Context):
  """The cache of all layers with this layer's new keys or values behind what it holds.

  The cache is the scan's carry, so XLA updates it in place; as a scanned input it would be copied at every token.
  """
  start = (layer.index, 0, context.filled, 0, 0)
  return jax.lax.dynamic_update_slice(cached, new[None].astype(cached.dtype), start)
