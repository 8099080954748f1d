"""What an FVE has to be compared with: answers that need no AV, no vector, or no text.

Each gives the vectors, texts or predictions that stand in for the real ones; `harness` scores them all alike.
"""

import numpy as np

from nla_jax.autoencoder.fve import normalise

_CHUNK = 256


def other_rows(n: int, groups: np.ndarray, seed: int) -> np.ndarray:
  """For each row another row, of another document group wherever there is one: [n] int indices, a permutation."""
  order = np.random.default_rng(seed).permutation(n)
  order = order[np.argsort(groups[order], kind="stable")]
  largest = max(np.unique(groups, return_counts=True)[1])
  shift = largest if 2 * largest <= n else max(n // 2, 1)
  other = np.empty(n, np.int64)
  other[order] = np.roll(order, -shift)
  return other


def nearest_rows(vectors: np.ndarray, training: np.ndarray) -> np.ndarray:
  """For each vector [n, d] the index of the training vector [m, d] with the highest cosine."""
  units = normalise(training)
  return np.concatenate(
    [
      np.argmax(normalise(vectors[i : i + _CHUNK]) @ units.T, axis=1)
      for i in range(0, len(vectors), _CHUNK)
    ]
  )


def mean_per_last_token(
  training: np.ndarray, training_tokens: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
  """For each last token [n] the mean direction of the training vectors [m, d] that share it; [n, d].

  A token that training does not have gets the mean direction of all.
  """
  units = normalise(training)
  known, member = np.unique(training_tokens, return_inverse=True)
  sums = np.zeros((len(known), training.shape[1]))
  np.add.at(sums, member, units)
  means = sums / np.bincount(member)[:, None]
  place = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
  return np.where((known[place] == tokens)[:, None], means[place], units.mean(axis=0)).astype(
    np.float32
  )
