"""The claims of explanations, each with the probability that it is true."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from nla_jax.autoencoder.explanation import Claim
from nla_jax.autoencoder.nla import NLA
from nla_jax.errors import NLAError
from nla_jax.evaluation.claims.confidence import Model
from nla_jax.evaluation.claims.evidence import Options, Read, draw, gather
from nla_jax.reading.reading import Reading


def weighed(
  nla: NLA, reads: Sequence[Read], model: Model, baseline: float, *, seed: int = 0, batch: int = 64
) -> list[tuple[Claim, ...]]:
  """The claims of explanations, and how far each can be trusted.

  The evidence is gathered as it was where the model was fitted: explanations of the tokens before and further samples
  are drawn, so it takes about twenty times as long as one explanation. A confidence is of the pair that it was
  fitted on: what another AV says, or one that was trained further, it may trust too much.

  Args:
    nla: the pair that wrote them.
    reads: the explanations, each with its activation and the tokens that the target had read.
    model: of the suite `confabulation`, by `confidence.load`.
    baseline: variance that errors are measured against.
    seed: of the draws.
    batch: explanations drawn at once.

  Raises:
    NLAError: there is no base model to read the tokens before with.
  """
  options = Options(**model.options, seed=seed, batch=batch)
  found = []
  for one in gather(nla, reads, draw(nla, reads, options), baseline, options):
    trusted = model.probability(one.claims, one.values) if one.claims else np.zeros(0)
    found.append(
      tuple(
        dataclasses.replace(claim, confidence=float(p)) for claim, p in zip(one.claims, trusted)
      )
    )
  return found


def with_confidence(
  nla: NLA, reading: Reading, model: Model, *, seed: int = 0, batch: int = 64
) -> Reading:
  """The reading with the claims of the best explanation of each position, weighed as `weighed` does.

  Args:
    nla: the pair that read.
    reading: of `nla.read`.
    model: of the suite `confabulation`, by `confidence.load`.
    seed: of the draws.
    batch: explanations drawn at once.

  Raises:
    NLAError: the baseline of the pair is not known, or there is no base model to read with.
  """
  if reading.baseline is None:
    raise NLAError(
      "the claims of this reading cannot be weighed: the variance of the pair's activations is not known; "
      "evaluate the pair (nla eval), or load it with its sidecar"
    )
  # 1. What was read, once more: a reading keeps no activations.
  ids = [list(map(int, reading.tokens.ids))]
  (vectors,) = nla.activations(ids, [list(reading.positions)])
  reads = [
    Read(ids[0], position, vector, best.text)
    for position, vector, best in zip(reading.positions, vectors, reading, strict=True)
  ]

  # 2. What speaks for each claim.
  claims = weighed(nla, reads, model, reading.baseline, seed=seed, batch=batch)
  samples = [
    [dataclasses.replace(several[0], claims=found), *several[1:]]
    for several, found in zip(reading.samples, claims, strict=True)
  ]
  return dataclasses.replace(reading, samples=samples)
