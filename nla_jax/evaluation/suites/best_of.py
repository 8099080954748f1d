"""Best of n: several explanations of each activation, of which the AR keeps the one that it rebuilds best.

What the choosing AR then scores is too good, for it chose by that very error. An AR that did not choose says how much
the choice is worth. Off unless the evaluation's settings ask for it.
"""

import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite

_DRAW = 4  # the number of its draw, see `Subject.explain`


def run(subject: Subject) -> Measured:
  """Scores the best of 1, 2, 4, … explanations of the first rows; empty where it is not asked for."""
  most, rows = _asked(subject)
  if most < 2:
    return Measured({})

  # 1. The first explanation is the one that the round trip scores, so n = 1 is the round trip.
  vectors = subject.activations[:rows]
  more = subject.explain(np.repeat(vectors, most - 1, axis=0), _DRAW).texts
  texts = []
  for i in range(rows):
    texts += [subject.sampled.texts[i], *more[i * (most - 1) : (i + 1) * (most - 1)]]

  # 2. Each reader scores all of them; the live one chooses.
  def errors(nla: NLA) -> np.ndarray:
    rebuilt = nla.reconstruct(texts, batch=subject.batch)
    repeated = np.repeat(vectors, most, axis=0)
    return np.asarray(fve.mse_nrm(rebuilt, repeated)).reshape(rows, most)

  readers = {"best_of": errors(subject.nla)}
  if subject.fixed_critic is not None:
    readers["best_of_fixed"] = errors(subject.fixed_critic)

  # 3. The first n of one draw serve every n: a larger n never has worse luck.
  by_n = {}
  for n in sizes(most):
    chosen = readers["best_of"][:, :n].argmin(axis=1)
    by_n[n] = {key: found[np.arange(rows), chosen] for key, found in readers.items()}
  return Measured({}, by_n=by_n)


def sizes(most: int) -> list[int]:
  """1, 2, 4, … up to `most`, which is the last."""
  doubled = [2**i for i in range(most.bit_length())]
  return sorted({*doubled, most})


def explanations(subject: Subject) -> int:
  """Counts the explanations that are drawn beside the round trip's."""
  most, rows = _asked(subject)
  return rows * max(most - 1, 0)


def _asked(subject: Subject) -> tuple[int, int]:
  settings = subject.settings
  return settings.best_of, min(settings.best_of_rows, subject.n)


SUITE = Suite(run, explanations)
