"""What the latents of an autoencoder say of an activation: the contexts that switch them on most, in training data."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.text import decode
from nla_jax.data.store.store import Store
from nla_jax.evaluation.sae.autoencoder import SAE

CONTEXTS = 2  # of a latent
SHOWN = 4  # latents of an activation
COMMON = 0.1  # of the rows: a latent that is on more often says nothing of one
_ROWS = 2048  # encoded at once
_TOKENS = 10  # of a context


class Features(NamedTuple):
  """Latents over training activations.

  Attributes:
    rows: [m, CONTEXTS] indices of the activations that switch a latent on most, of different documents, the most first;
      −1 where there is none.
    shares: [m] of the activations, in which a latent is on.
  """

  rows: np.ndarray
  shares: np.ndarray

  @property
  def dead(self) -> int:
    """Latents that are never on."""
    return int((self.shares == 0).sum())


class Contexts:
  """The words up to each of a store's rows, read where they are asked for."""

  def __init__(self, store: Store, rows: np.ndarray, tokenizer):
    self._store, self._rows, self._tokenizer = store, rows, tokenizer

  def __getitem__(self, i: int) -> str:
    store, row = self._store, self._rows[[i]]
    (document,), (at,) = store.read("document", row), store.read("position", row)
    tokens = store.documents[int(document)].tokens[max(at + 1 - _TOKENS, 0) : at + 1]
    return decode(self._tokenizer, tokens).strip()


def over(sae: SAE, activations: np.ndarray, documents: np.ndarray) -> Features:
  """The latents over activations [n, d] of documents [n]."""
  m = len(sae.b_enc)
  rows, values = np.full((m, CONTEXTS), -1), np.zeros((m, CONTEXTS), np.float32)
  counts, every = np.zeros(m, np.int64), np.arange(m)

  for start in range(0, len(activations), _ROWS):
    latents = sae.encode(activations[start : start + _ROWS])
    counts += (latents > 0).sum(axis=0)
    for _ in range(CONTEXTS):
      best = latents.argmax(axis=0)
      _insert(rows, values, best + start, latents[best, every], documents)
      # Tokens of one document say the same thing twice.
      latents[documents[start : start + len(latents), None] == documents[start + best]] = 0.0
  return Features(rows, counts / max(len(activations), 1))


def _insert(
  rows: np.ndarray, values: np.ndarray, new: np.ndarray, value: np.ndarray, documents: np.ndarray
) -> None:
  """Puts a row of each latent into its list, where it belongs there."""
  known = (rows >= 0) & (documents[rows] == documents[new][:, None])
  # A better row of a document that is in the list takes its place; any other the last one's.
  place = np.where(known.any(axis=1), known.argmax(axis=1), CONTEXTS - 1)
  every = np.arange(len(rows))
  better = value > values[every, place]
  rows[every[better], place[better]] = new[better]
  values[every[better], place[better]] = value[better]
  order = np.argsort(-values, axis=1, kind="stable")
  rows[:], values[:] = np.take_along_axis(rows, order, 1), np.take_along_axis(values, order, 1)


def strongest(features: Features, latents: np.ndarray, n: int = SHOWN) -> list[list[int]]:
  """The n strongest latents of each row of [k, m] that have a context and are not on everywhere, strongest first."""
  tells = (features.rows[:, 0] >= 0) & (features.shares <= COMMON)
  found = np.where(tells, latents, 0.0)
  order = np.argsort(-found, axis=1, kind="stable")[:, :n]
  return [[int(j) for j in row if found[i, j] > 0] for i, row in enumerate(order)]


def texts(
  features: Features, latents: np.ndarray, contexts: Sequence[str], n: int = SHOWN
) -> list[str]:
  """The contexts of the strongest latents of each row, one latent a line.

  Args:
    features: over the activations that `contexts` are of.
    latents: [k, m] of what is read.
    contexts: the words before each of these activations.
    n: latents of a row.
  """
  found = []
  for row in strongest(features, latents, n):
    lines = [[contexts[i] for i in features.rows[j] if i >= 0] for j in row]
    found.append("\n".join(" / ".join(one) for one in lines))
  return found
