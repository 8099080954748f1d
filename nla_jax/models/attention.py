"""Rotary positions, masks, and attention over several sources of keys with one softmax."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.models.architectures import Architecture, RopeScaling
from nla_jax.models.products import einsum
from nla_jax.parallel import sharding


def _inverse_frequencies(
  head_dim: int, theta: float, scaling: RopeScaling | None
) -> Float[Array, " half"]:
  """Radians a token, for half of a head's dimensions."""
  frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
  if scaling is None:
    return frequencies
  if scaling.kind == "linear":
    return frequencies / scaling.factor

  # Llama 3: wavelengths short against the original context stay, long ones are stretched, those between are blended.
  turns = scaling.original_max_positions * frequencies / (2 * jnp.pi)
  blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
  blend = jnp.clip(blend, 0.0, 1.0)
  return frequencies * (blend + (1 - blend) / scaling.factor)


def rotary_tables(
  architecture: Architecture, positions: Int[Array, "batch length"]
) -> tuple[
  Float[Array, "kinds batch length head_dim"], Float[Array, "kinds batch length head_dim"]
]:
  """Cosines and sines of positions; kind 0 is for global layers, 1 for local ones where layers differ."""
  a = architecture
  bases = [_inverse_frequencies(a.head_dim, a.rope_theta, a.rope_scaling)]
  if a.windows is not None:
    # Scaling stretches the long context, which a sliding window never sees.
    bases.append(_inverse_frequencies(a.head_dim, a.rope_theta_local or a.rope_theta, None))

  angles = positions[None, :, :, None].astype(jnp.float32) * jnp.stack(bases)[:, None, None, :]
  angles = jnp.concatenate([angles, angles], axis=-1)
  return jnp.cos(angles), jnp.sin(angles)


def rotate(
  x: Float[Array, "batch length heads head_dim"],
  cos: Float[Array, "rows length head_dim"],
  sin: Float[Array, "rows length head_dim"],
) -> Float[Array, "batch length heads head_dim"]:
  """The two halves of each head turned by the tables, in float32; `rows` is the batch or 1."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([-second, first], axis=-1)
  return (x * cos[:, :, None] + turned * sin[:, :, None]).astype(x.dtype)


def band_mask(
  query_positions: Int[Array, "batch queries"], key_positions: Int[Array, "rows keys"], window: int
) -> Bool[Array, "any queries keys"]:
  """Which keys lie within `window` tokens back, the token itself included; window 0 sees all.

  The leading axes broadcast: either may be 1.
  """
  distance = query_positions[:, :, None] - key_positions[:, None, :]
  return jnp.ones_like(distance, bool) if window == 0 else distance < window


def attend(
  q: Float[Array, "batch length heads head_dim"], sources: list, scale: float, dtype
) -> Float[Array, "batch length heads head_dim"]:
  """One softmax over the keys of all sources, in float32.

  Args:
    q: rotated queries.
    sources: (keys, values, mask) each. Keys and values are [batch, T, kv_heads, head_dim], or without the batch axis
      where all rows share them; the mask is [batch or 1, length, T] bool.
    scale: factor on the scores.
    dtype: of the products' operands.

  Returns:
    The attended values, float32. A query that sees no key gets the mean of the values, not NaN.
  """
  batch, length, heads, head_dim = q.shape
  kv_heads = sources[0][0].shape[-2]
  if kv_heads % sharding.size("tensor"):
    # Too few key heads to be shared by the devices, so each holds them all: give each query head its own.
    repeats = heads // kv_heads
    sources = [(_repeated(k, repeats), _repeated(v, repeats), mask) for k, v, mask in sources]
    kv_heads = heads
  q = q.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)

  # 1. Scores of each source's keys; a finite minimum, since −∞ would make a row without keys NaN.
  low = jnp.finfo(jnp.float32).min
  scores, sizes = [], []
  for keys, _, mask in sources:
    form = "bskgh,btkh->bkgst" if keys.ndim == 4 else "bskgh,tkh->bkgst"
    score = einsum(form, q, keys, dtype, "batch", "heads", None, None, None) * scale
    scores.append(jnp.where(mask[:, None, None], score, low))
    sizes.append(score.shape[-1])

  # 2. One softmax over all of them.
  weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)

  # 3. Each source's values by its share of the weights.
  out, start = 0.0, 0
  for (_, values, _), size in zip(sources, sizes):
    form = "bkgst,btkh->bskgh" if values.ndim == 4 else "bkgst,tkh->bskgh"
    share = weights[..., start : start + size]
    out = out + einsum(form, share, values, dtype, "batch", None, "heads", None, None)
    start += size
  return out.reshape(batch, length, heads, head_dim)


def _repeated(x, repeats: int):
  """Keys or values with each head repeated, in the layout of heads."""
  rows = ("batch", None) if x.ndim == 4 else (None,)
  return sharding.reshard(jnp.repeat(x, repeats, axis=-2), *rows, "heads", None)
