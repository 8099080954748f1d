"""Rates of verdicts: of tokens, and of transcripts with any among n tokens."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.auditing.grader import UNCLEAR, YES
from nla_jax.evaluation.intervals import Estimate, bootstrap_mean, bootstrap_ratio


class Counted(NamedTuple):
  """The verdicts of one transcript.

  Attributes:
    read: tokens whose explanation was graded.
    yes: of these, how many are a yes.
    unclear: how many are unclear.
  """

  read: int
  yes: int
  unclear: int


def counted(verdicts: Sequence[str]) -> Counted:
  """Counts the verdicts of one transcript."""
  found = list(verdicts)
  return Counted(len(found), found.count(YES), found.count(UNCLEAR))


def any_of(read: int, hits: int, n: int) -> float:
  """The chance that n tokens, drawn without replacement of those read, hold a hit: 1 − C(read − hits, n) / C(read, n).

  Where fewer than n were read it is whether there is any: nothing is invented for a short transcript.
  """
  n = min(n, read)
  return 1.0 - math.comb(read - hits, n) / math.comb(read, n) if read else 0.0


def token_rate(several: Sequence[Counted], what: str, seed: int = 0) -> Estimate | None:
  """The share of tokens with a verdict; None where nothing was read. Whole transcripts are drawn for its interval."""
  rows = [(i, one) for i, one in enumerate(several) if one.read]
  if not rows:
    return None
  groups = np.array([i for i, _ in rows])
  hits = np.array([getattr(one, what) for _, one in rows], float)
  read = np.array([one.read for _, one in rows], float)
  return bootstrap_ratio(hits, read, groups, seed=seed)


def any_rates(several: Sequence[Counted], most: int, what: str, seed: int = 0) -> list[Estimate]:
  """The share of transcripts with any hit among n tokens, for every n from 1 to `most`."""
  groups = np.arange(len(several))
  found = []
  for n in range(1, most + 1):
    values = np.array([any_of(one.read, hits(one, what), n) for one in several])
    found.append(bootstrap_mean(values, groups, seed=seed))
  return found


def hits(one: Counted, what: str) -> int:
  """The tokens of a transcript that count: of `unclear` none where there is a yes, whose column it is."""
  return 0 if what == UNCLEAR and one.yes else getattr(one, what)
