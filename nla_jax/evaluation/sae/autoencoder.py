"""A sparse autoencoder as arrays, and its one forward: what kinds differ in stands in `Kind`.

x' = scaled(x) − b_dec (where the kind takes it out)      z = activation(x' W_enc + b_enc)      x̂ = z W_dec + b_dec
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nla_jax.arrays import Array

RELU, TOP_K, JUMP_RELU = "relu", "top_k", "jump_relu"
PLAIN, CONSTANT_NORM, LAYER_NORM = "none", "constant_norm_rescale", "layer_norm"
_ROWS = 512  # encoded at once


class Kind(NamedTuple):
  """How a sparse autoencoder computes.

  Attributes:
    activation: `relu`; `top_k`, the k largest and of these what is positive; `jump_relu`, what is above a threshold.
    k: of `top_k`.
    minus_bias: whether the decoder's bias is taken out of what is encoded.
    scaling: of what is encoded, undone behind the decoder: `none`; `constant_norm_rescale`, to length √d; `layer_norm`.
    by_decoder: whether latents are measured in lengths of their decoder's row.
  """

  activation: str
  k: int = 0
  minus_bias: bool = False
  scaling: str = PLAIN
  by_decoder: bool = False


class SAE(NamedTuple):
  """A sparse autoencoder of m latents.

  Attributes:
    kind: how it computes.
    w_enc: [d, m].
    b_enc: [m].
    w_dec: [m, d].
    b_dec: [d].
    threshold: [m], of `jump_relu`; zeros otherwise.
  """

  kind: Kind
  w_enc: np.ndarray
  b_enc: np.ndarray
  w_dec: np.ndarray
  b_dec: np.ndarray
  threshold: np.ndarray

  def encode(self, x: np.ndarray) -> np.ndarray:
    """Latents [n, m] of activations [n, d], float32; hold no more rows of them than memory has room for."""
    return self._in_parts(_encode, x)

  def reconstruct(self, x: np.ndarray) -> np.ndarray:
    """[n, d] what is rebuilt of activations [n, d], float32."""
    return self._in_parts(_reconstruct, x)

  def _in_parts(self, program, x: np.ndarray) -> np.ndarray:
    found = []
    for start in range(0, len(x), _ROWS):
      # One shape: what fills the last part up is cut off again.
      rows = np.minimum(np.arange(start, start + _ROWS), len(x) - 1)
      part = np.asarray(program(self[1:], np.asarray(x[rows], np.float32), kind=self.kind))
      found.append(part[: len(x) - start])
    return np.concatenate(found)


Arrays = tuple  # (w_enc, b_enc, w_dec, b_dec, threshold)


@functools.partial(jax.jit, static_argnames="kind")
def _encode(arrays: Arrays, x, *, kind: Kind):
  return encoded(arrays, x, kind)


@functools.partial(jax.jit, static_argnames="kind")
def _reconstruct(arrays: Arrays, x, *, kind: Kind):
  return decoded(arrays, encoded(arrays, x, kind), x, kind)


def encoded(arrays: Arrays, x: Float[Array, "n d"], kind: Kind) -> Float[Array, "n m"]:
  """The latents of activations."""
  return activated(arrays, before_activation(arrays, x, kind), kind)


def before_activation(arrays: Arrays, x: Float[Array, "n d"], kind: Kind) -> Float[Array, "n m"]:
  """What the activation function is applied to."""
  w_enc, b_enc, w_dec, b_dec, _ = arrays
  shift, scale = _scale(x, kind)
  given = (x - shift) / scale
  if kind.minus_bias:
    given = given - b_dec
  found = given @ w_enc + b_enc
  return found * jnp.linalg.norm(w_dec, axis=1) if kind.by_decoder else found


def activated(arrays: Arrays, values: Float[Array, "n m"], kind: Kind) -> Float[Array, "n m"]:
  """The latents of what `before_activation` gave."""
  positive = jnp.maximum(values, 0.0)
  if kind.activation == TOP_K:
    return jnp.where(values >= least_of_largest(values, kind.k), positive, 0.0)
  if kind.activation == JUMP_RELU:
    return jnp.where(values > arrays[4], positive, 0.0)
  return positive


def least_of_largest(values: Float[Array, "n m"], k: int) -> Float[Array, "n 1"]:
  """The k-th largest value of each row."""
  return jax.lax.stop_gradient(jax.lax.top_k(values, k)[0][:, -1:])


def decoded(
  arrays: Arrays, latents: Float[Array, "n m"], x: Float[Array, "n d"], kind: Kind
) -> Float[Array, "n d"]:
  """Activations rebuilt from latents; the scale is that of the activations `x` themselves."""
  _, _, w_dec, b_dec, _ = arrays
  if kind.by_decoder:
    latents = latents / jnp.linalg.norm(w_dec, axis=1)
  shift, scale = _scale(x, kind)
  return (latents @ w_dec + b_dec) * scale + shift


def _scale(x, kind: Kind):
  """What is taken from x, and by what the rest is divided."""
  if kind.scaling == CONSTANT_NORM:
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return 0.0, jnp.maximum(length, 1e-12) / x.shape[-1] ** 0.5
  if kind.scaling == LAYER_NORM:
    # As SAELens: the deviation of a sample, and the epsilon outside of the root.
    return x.mean(axis=-1, keepdims=True), jnp.std(x, axis=-1, keepdims=True, ddof=1) + 1e-5
  return 0.0, 1.0
