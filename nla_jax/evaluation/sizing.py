"""Gives a subject's pair the head that says how large an activation is, from explanations of training rows."""

import copy
import dataclasses

import numpy as np

from nla_jax.autoencoder import magnitude
from nla_jax.errors import NLAError
from nla_jax.evaluation.subject import Subject
from nla_jax.progress import say

_DRAW = 11  # the number of its draw, see `Subject.explain`


def with_magnitude(subject: Subject, rows: int) -> Subject:
  """The subject with a pair that has the head; as it is where `rows` is 0, or too few explanations parse.

  The AV's own explanations are read, not the teacher's: they are what will be patched in.

  Args:
    subject: drawn, not yet measured.
    rows: training activations that are explained for it.
  """
  if not rows or not len(subject.training_rows):
    return subject

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
  said = [text for text in texts if text is not None]
  nla = copy.copy(subject.nla)
  try:
    rebuilt = nla.reconstruct(said, batch=subject.batch)
    norms = np.linalg.norm(activations[parsed], axis=1)
    nla.magnitude = magnitude.fit(rebuilt, norms, groups, subject.seed)
  except NLAError as reason:
    # The evaluation is worth more than this one number.
    say(f"eval: the pair stays without a size: {reason}")
    return subject
  return dataclasses.replace(subject, nla=nla)
