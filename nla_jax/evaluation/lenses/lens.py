"""What a lens is: it takes an activation to where the target's output layer reads it, and reads words there.

logit lens      nothing: the activation itself               (nostalgebraist, 2020)
affine lens     a map fitted to the target's own next-token distribution   (tuned lens: Belrose et al., 2023)
Jacobian lens   the mean Jacobian of the last block's output by block K's  (Gurnee et al., 2026)
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.text import decode
from nla_jax.models.block import rms_norm
from nla_jax.models.parameters import unembedding
from nla_jax.models.products import einsum
from nla_jax.parallel import sharding
from nla_jax.reading.complete import Target

WORDS = 5  # that a lens gives to read
_ROWS = 64  # read at once


class Lens(NamedTuple):
  """An affine map of activations.

  Attributes:
    matrix: [d, d], of what is read by what is given; None for the identity.
    bias: [d], or None for none.
  """

  matrix: np.ndarray | None = None
  bias: np.ndarray | None = None

  def of(self, vectors: np.ndarray) -> np.ndarray:
    """Activations [n, d] as the output layer is to read them: [n, d] float32."""
    found = np.asarray(vectors, np.float32)
    if self.matrix is not None:
      found = found @ self.matrix.T
    return found if self.bias is None else found + self.bias


def words(
  lens: Lens, target: Target, tokenizer: Any, vectors: np.ndarray, k: int = WORDS
) -> list[str]:
  """The k likeliest tokens of each activation [n, d] through a lens, likeliest first, as one text each."""
  mapped, found = lens.of(vectors), []
  for start in range(0, len(mapped), _ROWS):
    # One shape: what fills a batch up is a copy that nobody looks at.
    rows = np.minimum(np.arange(start, start + _ROWS), len(mapped) - 1)
    (given,) = sharding.shard_rows((mapped[rows],))
    base, architecture = target.params["base"], target.model.architecture
    ids = sharding.fetch(_top(base, given, architecture=architecture, k=k))
    found += [decode(tokenizer, row) for row in ids[: len(mapped) - start]]
  return found


def surprise(
  target: Target, vectors: np.ndarray, next_ids: Sequence[int], lens: Lens | None = None
) -> np.ndarray:
  """[n] −log p of the token behind each activation [n, d] through a lens, in nats; 0 where its id is -1: none follows.

  Args:
    target: the whole model.
    vectors: activations.
    next_ids: the token that comes after each.
    lens: the logit lens where None.
  """
  mapped, ids, found = (lens or Lens()).of(vectors), np.asarray(next_ids, np.int32), [np.zeros(0)]
  for start in range(0, len(ids), _ROWS):
    rows = np.minimum(np.arange(start, start + _ROWS), len(ids) - 1)
    given = sharding.shard_rows((mapped[rows], np.maximum(ids[rows], 0)))
    base, architecture = target.params["base"], target.model.architecture

    nats = sharding.fetch(_surprise(base, *given, architecture=architecture))
    found.append(np.where(ids[rows] < 0, 0, nats)[: len(ids) - start])
  return np.concatenate(found)


def logits(base: Any, residuals, architecture):
  """[n, vocabulary] logits of the target's output layer on residuals [n, d] of its last block, float32."""
  hidden = rms_norm(residuals, base["final_norm"], architecture.rms_eps, architecture.norm_offset)
  return einsum("nd,vd->nv", hidden, unembedding(base), np.float32, "batch", None)


@functools.partial(jax.jit, static_argnames="architecture")
def _surprise(base: Any, residuals, ids, *, architecture):
  found = jax.nn.log_softmax(logits(base, residuals, architecture))
  return -jnp.take_along_axis(found, ids[:, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnames=("architecture", "k"))
def _top(base: Any, residuals, *, architecture, k: int):
  return jax.lax.top_k(logits(base, residuals, architecture), k)[1]
