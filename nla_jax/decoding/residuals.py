"""Residuals of a frozen model at chosen tokens of texts of any lengths, by a bounded number of programs.

1. Texts are cut after the last token that is asked for: what follows it cannot change it.
2. Texts of like length stand in one batch, padded on the right. Rows and lengths are rounded up to a few sizes.
3. A batch that is longer than a chunk goes through in chunks that fill a cache. Attention then needs memory for a chunk
   of queries, so memory grows with the length and not with its square. The cache doubles when it is full, so that the
   first chunks do not attend to room that is empty; each of its sizes is a program.
4. Of a chunk's residuals the wanted rows are kept, on the host.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from nla_jax.arrays import Array
from nla_jax.decoding import loop
from nla_jax.models.architectures import Architecture
from nla_jax.models.cache import Cache, empty_cache
from nla_jax.models.target import frozen_variables
from nla_jax.models.transformer import Transformer
from nla_jax.parallel import sharding

CHUNK = 256  # tokens of one forward, at most
LENGTHS = (32, 64, 128, 192, CHUNK)  # of texts that are no longer than a chunk
ROWS = (1, 4)  # of a batch
TOKENS = 8192  # of a batch of several rows, at most


def residuals(
  params: Any,
  texts: Sequence[Sequence[int]],
  positions: Sequence[Sequence[int]],
  *,
  architecture: Architecture,
  layer: int,
  dtype,
  chunk: int = CHUNK,
) -> list[Float[np.ndarray, "positions d_model"]]:
  """The output of block K at chosen tokens of each text, float32.

  Args:
    params: of the model's blocks 0..K, or {"base": tree} of a frozen base with all of them, as for `target.read`.
    texts: token ids of each text.
    positions: of each text, indices of its tokens in any order; a text may have none.
    architecture: of the whole model.
    layer: K, 0-based.
    dtype: of the operands of matrix products.
    chunk: tokens of one forward, at most.

  Returns:
    for each text, the residuals in the order of its positions.
  """
  width = architecture.d_model
  found = [np.zeros((len(wanted), width), np.float32) for wanted in positions]
  # What is asked of no position is not computed.
  lengths = {i: max(wanted) + 1 for i, wanted in enumerate(positions) if len(wanted)}

  for batch, shape in _batches(lengths, chunk):
    tokens, valid = _padded([texts[i][: lengths[i]] for i in batch], shape)
    parts = _forward(params, tokens, valid, architecture, layer, dtype, chunk)
    for start, hidden in parts:
      for row, i in enumerate(batch):
        _keep(found[i], np.asarray(positions[i]), hidden[row], start)
  return found


def _keep(found: np.ndarray, wanted: np.ndarray, hidden: np.ndarray, start: int) -> None:
  """Copies the residuals of a chunk that are wanted of one text."""
  here = (wanted >= start) & (wanted < start + len(hidden))
  found[here] = hidden[wanted[here] - start]


def _batches(lengths: dict[int, int], chunk: int) -> Iterator[tuple[list[int], tuple[int, int]]]:
  """Texts that are computed together, and the shape (rows, length) of their batch, the longest first."""
  left = sorted(lengths, key=lambda i: -lengths[i])
  while left:
    length = padded_length(lengths[left[0]], chunk)
    rows = ROWS[-1] if len(left) > 1 and length * ROWS[-1] <= TOKENS else ROWS[0]
    batch, left = left[:rows], left[rows:]
    yield batch, (sharding.round_up_rows(rows), length)


def padded_length(length: int, chunk: int = CHUNK) -> int:
  """The length that a text of `length` tokens is padded to: one of a few, then whole chunks."""
  short = [one for one in LENGTHS if length <= one <= chunk]
  return short[0] if short else -(-length // chunk) * chunk


def _padded(
  texts: list[Sequence[int]], shape: tuple[int, int]
) -> tuple[Int[np.ndarray, "rows length"], Bool[np.ndarray, "rows length"]]:
  """Tokens and which of them are a text's own; rows without a text have one token."""
  tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, bool)
  valid[:, 0] = True
  for row, ids in enumerate(texts):
    tokens[row, : len(ids)], valid[row, : len(ids)] = ids, True
  return tokens, valid


def _forward(
  params: Any, tokens, valid, architecture: Architecture, layer: int, dtype, chunk: int
) -> Iterator[tuple[int, Float[np.ndarray, "rows part d_model"]]]:
  """Where each chunk begins, and its residuals; chunks behind every text are left out."""
  lora, _, _ = frozen_variables(params)
  model = Transformer(architecture, layer, dtype, lora=lora)
  rows, length = tokens.shape
  if length <= chunk:
    hidden, _ = extend(params, *sharding.shard_rows((tokens, valid)), None, model=model)
    yield 0, sharding.fetch(hidden)
    return

  below = architecture.lower(layer + 1)
  cache = empty_cache(below, rows, 2 * chunk, loop.cache_dtype(dtype))
  for start in range(0, int(valid.sum(axis=1).max()), chunk):
    if start == cache.length:
      cache = loop.enlarged(cache, 2 * cache.length)
    part = slice(start, start + chunk)
    given = sharding.shard_rows((tokens[:, part], valid[:, part]))
    hidden, cache = extend(params, *given, cache, model=model)
    yield start, sharding.fetch(hidden)


@functools.partial(jax.jit, static_argnames="model", donate_argnums=3)
def extend(
  params: Any,
  tokens: Int[Array, "rows part"],
  valid: Bool[Array, "rows part"],
  cache: Cache | None,
  *,
  model: Transformer,
) -> tuple[Float[Array, "rows part d_model"], Cache | None]:
  """The residuals of one chunk of each row, float32, and the cache with it behind what it held."""
  _, variables, _ = frozen_variables(params)
  output = model.apply(variables, tokens, valid=valid, cache=cache)
  return output.hidden.astype("float32"), output.cache
