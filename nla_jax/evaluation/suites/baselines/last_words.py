"""Baseline: the AR reads the last words of the context, as many tokens as the AV's explanation has; no AV takes part.

What an explanation adds to a quotation of the text is what the round trip has above this.
"""

import numpy as np

from nla_jax.autoencoder.text import decode
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite


def run(subject: Subject) -> Measured:
  """Scores each row on the end of its own context, at the length of its sampled explanation."""
  tokenizer = subject.nla.pair.tokenizer

  # An explanation that does not parse is scored as an empty one, so its row gets no word either.
  explanations = [text or "" for text in subject.sampled.texts]
  lengths = map(len, tokenizer(explanations, add_special_tokens=False)["input_ids"])

  texts = []
  for document, position, length in zip(subject.documents, subject.positions, lengths):
    words = last_tokens(document.tokens, int(position), length)
    texts.append(decode(tokenizer, words).strip())
  return Measured({"last_words": subject.score(texts)})


def last_tokens(tokens: np.ndarray, position: int, length: int) -> np.ndarray:
  """Cuts the last `length` tokens of a context that ends with the explained one; all of a shorter context."""
  # The target has read the explained token itself, and nothing after it.
  end = position + 1
  return tokens[max(end - length, 0) : end]


SUITE = Suite(run)
