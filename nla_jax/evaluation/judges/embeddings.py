"""W2: judges that compare a text with options by the cosine of embeddings, whitened or not."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder.text import encode
from nla_jax.decoding.residuals import residuals
from nla_jax.evaluation.judges.judge import CONTINUATION, Frame, Judge, Question
from nla_jax.reading.complete import Target

Embed = Callable[[Sequence[str]], np.ndarray]  # [n] texts to [n, d]
_FLOOR = 0.1  # of the median variance, added to all: directions that a few texts do not show are not blown up
_MOST_TOKENS = 256  # of a text that the target embeds


class Embeddings(Judge):
  """The cosine of a text's embedding with each option's.

  Args:
    name: as tables show it.
    embed: what embeds texts.
    reference: texts whose mean and covariance are taken out, none of those that are judged; empty for neither.
  """

  def __init__(self, name: str, embed: Embed, reference: Sequence[str] = ()):
    self.name, self._embed = name, embed
    self._known: dict[str, np.ndarray] = {}
    self._mean, self._whiten = None, None
    if len(reference) > 1:
      self._mean, self._whiten = whitening(np.asarray(embed(list(reference)), np.float64))

  def scores(self, questions: Sequence[Question], frame: Frame = CONTINUATION) -> list[np.ndarray]:
    """Cosines; zeros without a text. How the question is put is not read."""
    self._learn([text for one in questions for text in (one.text, *one.options) if text])
    return [
      np.array([self._known[o] @ self._known[one.text] if o else 0.0 for o in one.options])
      if one.text
      else np.zeros(len(one.options))
      for one in questions
    ]

  def _learn(self, texts: list[str]) -> None:
    new = [text for text in dict.fromkeys(texts) if text not in self._known]
    if not new:
      return
    found = np.asarray(self._embed(new), np.float64)
    if self._whiten is not None:
      found = (found - self._mean) @ self._whiten
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    self._known |= dict(zip(new, found))


def whitening(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The mean [d] of embeddings [n, d], and the symmetric matrix [d, d] that makes their covariance the identity.

  The covariance is shrunk: a tenth of the median variance is added to every direction.
  """
  mean = embeddings.mean(axis=0)
  centred = embeddings - mean
  values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
  # The median of those that vary at all: a model's residuals have directions that outweigh the mean of all others.
  varying = values[values > 1e-9 * max(values.max(), 1e-12)]
  values = np.maximum(values, 0.0) + _FLOOR * (np.median(varying) if len(varying) else 1.0)
  return mean, (vectors / np.sqrt(values)) @ vectors.T


def mean_states(target: Target, tokenizer: Any, layer: int) -> Embed:
  """What embeds a text as the mean of the target's residuals after a block, over its tokens.

  Args:
    target: the language model.
    tokenizer: of it.
    layer: 0-based.
  """
  architecture, params = target.loaded

  def embed(texts: Sequence[str]) -> np.ndarray:
    ids = [encode(tokenizer, text, at_most=_MOST_TOKENS) or [0] for text in texts]
    # Behind a BOS, whose own state is an outlier of norm: it is read and left out of the mean.
    begin = encode(tokenizer, "", special=True)[:1]
    rows = [begin + one for one in ids]
    places = [list(range(len(begin), len(row))) for row in rows]
    found = residuals(
      params, rows, places, architecture=architecture, layer=layer, dtype=target.model.dtype
    )
    return np.stack([one.mean(axis=0) for one in found])

  return embed
