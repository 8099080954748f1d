"""What reads an activation without an AV, as text: every row of a table that has the same vector and no more."""

from collections.abc import Callable

import numpy as np

from nla_jax.evaluation.lenses.fitted import lenses
from nla_jax.evaluation.lenses.lens import words
from nla_jax.evaluation.sae import fitted as sae
from nla_jax.evaluation.subject import Subject

Texts = dict[str, list[str]]


def texts(subject: Subject, vectors: np.ndarray) -> Texts:
  """The texts of activations [n, d] by row; a reader that the subject has no data for has no row."""
  found: Texts = {}
  if not subject.settings.baselines:
    return found
  for read in READERS:
    found |= read(subject, vectors)
  return found


def _lenses(subject: Subject, vectors: np.ndarray) -> Texts:
  target, tokenizer = subject.nla.whole_target, subject.nla.pair.tokenizer
  every = lenses(subject).items()
  return {name: words(lens, target, tokenizer, vectors) for name, lens in every}


READERS: tuple[Callable[[Subject, np.ndarray], Texts], ...] = (_lenses, sae.texts)
