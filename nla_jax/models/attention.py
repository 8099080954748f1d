"""Rotary positions, masks, and attention over several sources of keys with one softmax."""

import jax
import jax.numpy as jnp

from nla_jax.models.architectures import Architecture, RopeScaling
from nla_jax.models.products import einsum
from nla_jax.parallel import sharding


def _inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None):
  """[head_dim / 2] radians a token. Llama 3 keeps short wavelengths, stretches long ones, blends in between."""
  frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
  if scaling is None:
    return frequencies
  if scaling.kind == "linear":
    return frequencies / scaling.factor
  turns = (
    scaling.original_max_positions * frequencies / (2 * jnp.pi)
  )  # rotations within the original context
  blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
  blend = jnp.clip(blend, 0.0, 1.0)
  return frequencies * (blend + (1 - blend) / scaling.factor)


def rotary_tables(architecture: Architecture, positions):
  """cos and sin, each [kinds, batch, length, head_dim] float32: kind 0 is global, 1 local where layers differ."""
  a = architecture
  bases = [_inverse_frequencies(a.head_dim, a.rope_theta, a.rope_scaling)]
  if a.windows is not None:
    bases.append(_inverse_frequencies(a.head_dim, a.rope_theta_local or a.rope_theta, None))
  angles = positions[None, :, :, None].astype(jnp.float32) * jnp.stack(bases)[:, None, None, :]
  angles = jnp.concatenate([angles, angles], axis=-1)
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x, cos, sin):
  """Rotates the two halves of each head of x [batch, length, heads, head_dim] by the tables, in float32."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([-second, first], axis=-1)
  return (x * cos[:, :, None] + turned * sin[:, :, None]).astype(x.dtype)


def band_mask(query_positions, key_positions, window: int):
  """[batch, queries, keys] bool: within `window` tokens back (the token itself counts); all True for window 0."""
  distance = query_positions[:, :, None] - key_positions[:, None, :]
  return jnp.ones_like(distance, bool) if window == 0 else distance < window


def attend(q, sources, scale: float, dtype):
  """One softmax over the keys of all sources.

  Args:
    q: [batch, length, heads, head_dim].
    sources: list of (keys, values, mask). Keys and values are [batch, T, kv_heads, head_dim], or without the
      batch axis where all rows share them; mask is [batch or 1, length, T] bool.
    scale: factor on the scores.
    dtype: of the products' operands.

  Returns:
    [batch, length, heads, head_dim] float32; the softmax is float32. A query that sees no key gets the mean
    of the values, not NaN.
  """
  batch, length, heads, head_dim = q.shape
  kv_heads = sources[0][0].shape[-2]
  if kv_heads % sharding.size(
    "tensor"
  ):  # key heads are whole on every device: give each query head its own
    own = lambda x: sharding.reshard(
      jnp.repeat(x, heads // kv_heads, axis=-2),
      *(("batch", None) if x.ndim == 4 else (None,)),
      "heads",
      None,
    )
    sources = [(own(keys), own(values), mask) for keys, values, mask in sources]
    kv_heads = heads
  q = q.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
  low = jnp.finfo(jnp.float32).min
  scores, sizes = [], []
  for keys, _, mask in sources:
    form = "bskgh,btkh->bkgst" if keys.ndim == 4 else "bskgh,tkh->bkgst"
    score = einsum(form, q, keys, dtype, "batch", "heads", None, None, None) * scale
    scores.append(jnp.where(mask[:, None, None], score, low))
    sizes.append(score.shape[-1])
  weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
  out, start = 0.0, 0
  for (_, values, _), size in zip(sources, sizes):
    form = "bkgst,btkh->bskgh" if values.ndim == 4 else "bkgst,tkh->bskgh"
    out = out + einsum(
      form, weights[..., start : start + size], values, dtype, "batch", None, "heads", None, None
    )
    start += size
  return out.reshape(batch, length, heads, head_dim)
