"""Which tokens are explained: half of the budget by score, half uniformly, so that rates stay unbiased.

The tokens are two strata: those of the highest scores, and all others. Of each a random sample is explained, of the
first usually all; a token stands for as many of its stratum as there are to one explained. The weighted mean of any
label is then an unbiased estimate of its rate over all tokens, whatever the score is (Horvitz and Thompson, 1952), also
where a bound in seconds ended the explaining.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

APART = 4  # tokens between two that are chosen by score: neighbours say the same


class Chosen(NamedTuple):
  """Tokens to explain, in the order in which they are explained: the halves in turn, each in random order.

  Attributes:
    places: [k] indices among the tokens that may be explained.
    scored: [k] bool, of the stratum with the highest scores.
    sizes: tokens of the two strata, the scored one first.
  """

  places: np.ndarray
  scored: np.ndarray
  sizes: tuple[int, int]

  def first(self, k: int) -> "Chosen":
    """The first k of them: what time was left for."""
    return Chosen(self.places[:k], self.scored[:k], self.sizes)

  @property
  def weights(self) -> Float[np.ndarray, " k"]:
    """Of each token for how many it stands; they sum to all tokens where each stratum that is not empty has one."""
    scored = np.count_nonzero(self.scored)
    stands = [self.sizes[0] / max(scored, 1), self.sizes[1] / max(len(self.places) - scored, 1)]
    return np.where(self.scored, *stands)


def choose(scores: Float[np.ndarray, " n"], budget: int, seed: Sequence[int] | int) -> Chosen:
  """Chooses at most `budget` tokens.

  Args:
    scores: of each token that may be explained; all equal where nothing scores, and then all are drawn uniformly.
    budget: tokens, at least 1.
    seed: of the draw.
  """
  n = len(scores)
  flat = n == 0 or np.ptp(scores) == 0
  by_score = [] if flat else _spread(scores, min(budget // 2, n))
  rest = np.setdiff1d(np.arange(n), by_score)
  random = np.random.default_rng(seed)
  halves = random.permutation(by_score), random.permutation(rest)[: budget - len(by_score)]

  # In turn, so that a bound in seconds cuts both.
  order = sorted(
    (i, half, place) for half in (0, 1) for i, place in enumerate(halves[half].tolist())
  )
  places = np.array([place for _, _, place in order], int)
  scored = np.array([half == 0 for _, half, _ in order], bool)
  return Chosen(places, scored, (len(by_score), len(rest)))


def _spread(scores: np.ndarray, k: int) -> list[int]:
  """The k highest scores, no two within `APART` tokens as long as there are others."""
  taken: list[int] = []
  near = np.zeros(len(scores), bool)
  # Ties go to the earlier token.
  for place in np.argsort(-scores, kind="stable").tolist():
    if len(taken) == k:
      break
    if not near[place]:
      taken.append(place)
      near[max(place - APART + 1, 0) : place + APART] = True
  return taken


def rate(chosen: Chosen, labels: Sequence[bool]) -> float:
  """The estimated share of all tokens with the label; NaN where a stratum has no explained token."""
  explained = np.count_nonzero(chosen.scored), np.count_nonzero(~chosen.scored)
  if not len(labels) or any(size and not n for size, n in zip(chosen.sizes, explained)):
    return float("nan")
  return float(np.asarray(labels, float) @ chosen.weights / sum(chosen.sizes))
