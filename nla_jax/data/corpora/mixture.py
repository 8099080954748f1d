"""Mixtures: how many documents are drawn of each source of a corpus, and which."""

import random
from collections.abc import Collection, Sequence

import numpy as np

from nla_jax.data.corpora.read import source_names
from nla_jax.errors import NLAError

_EXAMPLE = "--config.data.weights=ONE=0.7,ANOTHER=0.3"


def read_weights(corpus: str, weights: str) -> list[float]:
  """Returns the weight of each source of a corpus, in its order; empty where none are given.

  Args:
    corpus: as the config names it.
    weights: "NAME=SHARE,NAME=SHARE" with every source's name once: a sample's, a file's stem, a name on the hub.

  Raises:
    NLAError: a name is unknown, missing or there twice, or a share is no number above 0, or they do not add to 1.
  """
  names = source_names(corpus)
  if not weights.strip():
    return []
  if names == [""]:
    raise NLAError(
      f"config.data.weights={weights!r}: the corpus {corpus} is one; join several by +"
    )

  shares: dict[str, float] = {}
  for part in weights.split(","):
    # From the right: a name on the hub may hold anything.
    name, _, share = part.strip().rpartition("=")
    if name not in names or name in shares:
      said = "is there twice" if name in shares else "is none of its parts"
      raise NLAError(
        f"config.data.weights={weights!r}: {name!r} {said}; the corpus has {', '.join(names)}, written as in {_EXAMPLE}"
      )
    shares[name] = _share(share, name, weights)

  missing = [name for name in names if name not in shares]
  if missing:
    raise NLAError(
      f"config.data.weights={weights!r} does not say how much of {missing[0]}: give all of {', '.join(names)}"
    )
  total = sum(shares.values())
  # 1e-6: shares such as 0.1 do not add to 1 exactly.
  if abs(total - 1) > 1e-6:
    raise NLAError(f"config.data.weights={weights!r} add to {total:g}; they must add to 1")
  return [shares[name] for name in names]


def _share(text: str, name: str, weights: str) -> float:
  try:
    share = float(text)
  except ValueError:
    share = float("nan")
  # A part of nothing would be named everywhere and be nowhere.
  if not 0 < share <= 1:
    raise NLAError(
      f"config.data.weights={weights!r}: {name} has {text!r}; give a number above 0, or leave it out of --config.corpus"
    )
  return share


def draw(
  counts: Sequence[int], wanted: int, seed: int, weights: Sequence[float] = ()
) -> Collection[int]:
  """Draws documents: by weight, or the same number of each source as far as it has them.

  Args:
    counts: documents of each source; the corpus has them in this order.
    wanted: how many; 0 for all, or with weights for as many as have these shares.
    seed: of the run.
    weights: share of each source; empty for none.

  Returns:
    places in the corpus.

  Raises:
    NLAError: a source is too small for its share to be one document.
  """
  total = sum(counts)
  if not weights and (not wanted or wanted >= total):
    return range(total)

  shares = _by_weight(counts, wanted, weights) if weights else _alike(counts, wanted)
  generator, drawn, begin = random.Random(seed), set(), 0
  for count, share in zip(counts, shares, strict=True):
    drawn.update(generator.sample(range(begin, begin + count), share))
    begin += count
  return drawn


def _alike(counts: Sequence[int], wanted: int) -> list[int]:
  # The smallest source first: what it cannot give is left for the others.
  shares, left = [0] * len(counts), wanted
  for given, i in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
    shares[i] = min(counts[i], left // (len(counts) - given))
    left -= shares[i]
  return shares


def _by_weight(counts: Sequence[int], wanted: int, weights: Sequence[float]) -> list[int]:
  """Documents of each source. The source that is scarcest for its weight says how many there are in all."""
  # 1e-9: 100 × 0.29 is 28.999999999999996 in floating point, and 29 is meant.
  most = int(min(count / weight for count, weight in zip(counts, weights, strict=True)) + 1e-9)
  total = min(wanted, most) if wanted else most
  exact = [total * weight for weight in weights]
  shares = [int(one + 1e-9) for one in exact]

  # What rounding down leaves goes to those that lost most by it.
  lost = [one - share for one, share in zip(exact, shares, strict=True)]
  order = np.argsort(-np.round(lost, 9), kind="stable").tolist()
  for i in order[: total - sum(shares)]:
    shares[i] = min(shares[i] + 1, counts[i])
  if 0 in shares:
    raise NLAError(
      f"a share of {weights[shares.index(0)]:g} of {total} documents is none: raise --config.data.max_documents, "
      "give more documents, or that source a larger weight"
    )
  return shares
