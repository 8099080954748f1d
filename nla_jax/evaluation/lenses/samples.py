"""What lenses are fitted on: residuals of the target over training documents, at block K and at the last block."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.data.store.documents import Documents
from nla_jax.decoding.residuals import residuals
from nla_jax.reading.complete import Target

FIRST = 16  # tokens of a document that are left out: they take what no other token wants, and are unlike all others
_LENGTH = 128  # tokens of a document that are read


class Samples(NamedTuple):
  """Residuals of n tokens.

  Attributes:
    read: [n, d] after block K, float32.
    final: [n, d] after the last block, float32.
    documents: [n] index of the document.
  """

  read: np.ndarray
  final: np.ndarray
  documents: np.ndarray


def draw_texts(documents: Documents, n: int, seed: int, length: int = _LENGTH) -> list[list[int]]:
  """The first tokens of up to n documents that are not evaluated and have a token behind the first ones."""
  others = [i for i, split in enumerate(documents.splits) if split != "held_out"]
  found = []
  for i in np.random.default_rng((seed, 7)).permutation(others):
    tokens = documents[int(i)].tokens[:length]
    if len(tokens) > FIRST + 1:
      found.append(tokens.tolist())
    if len(found) == n:
      break
  return found


def valid_positions(length: int) -> range:
  """Positions of a text that lenses are fitted on: none of the first, and not the last, which nothing follows."""
  return range(FIRST, length - 1)


def read_samples(target: Target, layer: int, texts: Sequence[Sequence[int]]) -> Samples:
  """The residuals of texts at their valid positions.

  Args:
    target: the whole model.
    layer: K, 0-based.
    texts: of `draw_texts`.
  """
  architecture, params = target.loaded
  places = [valid_positions(len(tokens)) for tokens in texts]

  def at(block: int) -> np.ndarray:
    found = residuals(
      params, texts, places, architecture=architecture, layer=block, dtype=target.model.dtype
    )
    return np.concatenate(found)

  counts = [len(one) for one in places]
  return Samples(at(layer), at(architecture.n_layers - 1), np.repeat(np.arange(len(texts)), counts))
