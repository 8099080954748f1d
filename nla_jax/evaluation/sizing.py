"""Gives a subject's pair the head that says how large an activation is, from explanations of training rows."""

import dataclasses

import numpy as np

from nla_jax.autoencoder import magnitude
from nla_jax.errors import NLAError
from nla_jax.evaluation.subject import Subject
from nla_jax.progress import say

_DRAW = 11  # the number of its draw, see `Subject.explain`


def with_magnitude(subject: Subject, rows: int) -> Subject:
  """The subject with a pair that has the head; as it is where `rows` is 0.

  The AV's own explanations are read, not the teacher's: they are what will be patched in.

  Args:
    subject: drawn, not yet measured.
    rows: training activations that are explained for it.

  Raises:
    NLAError: there are too few of them, or too few explanations parse.
  """
  if not rows:
    return subject
  if not len(subject.training_rows):
    raise NLAError("config.evaluation.magnitude_rows: the store has no training rows; set it to 0")

  # 1. Explanations of some training activations; what does not parse says nothing of a size.
  say(f"eval: the size of activations is fitted to explanations of {rows} training activations")
  random = np.random.default_rng(subject.seed)
  chosen = np.sort(random.permutation(len(subject.training_rows))[:rows])
  activations = subject.training_activations[chosen]
  texts = subject.explain(activations, _DRAW).texts
  parsed = np.array([text is not None for text in texts])

  # 2. The head.
  index = subject.store.read("document", subject.training_rows[chosen[parsed]])
  groups = np.array([subject.store.documents.groups[i] for i in index.tolist()])
  found = magnitude.fit(
    subject.nla.reconstruct([text for text in texts if text is not None], batch=subject.batch),
    np.linalg.norm(activations[parsed], axis=1),
    groups,
    subject.seed,
  )
  return dataclasses.replace(subject, nla=dataclasses.replace(subject.nla, magnitude=found))
