"""Judges whose answers are known."""

import numpy as np

from nla_jax.evaluation.judges.judge import Judge


class Overlap(Judge):
  """Chooses by shared words."""

  name = "overlap"

  def scores(self, questions, frame=None):
    return [
      np.array([float(len(set(o.split()) & set((q.text or "").split()))) for o in q.options])
      for q in questions
    ]


class Deaf(Judge):
  """Says the first option of whatever it reads."""

  name = "deaf"

  def scores(self, questions, frame=None):
    return [np.arange(len(q.options), 0, -1.0) for q in questions]
