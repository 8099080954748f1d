"""The same parts in another order: items of lists, sentences, paragraphs."""

import numpy as np

from nla_jax.evaluation.fields import Span, fields_of, items_of, replaced, sentences_of


def shuffle_items(text: str, random: np.random.Generator) -> str:
  """The items of each list in another order, and bullets among each other; numbers of bullets stay in place."""
  fields, moved = fields_of(text), {}
  for field in fields:
    moved |= _shuffled(items_of(text, field), random)

  # A labelled list within a bullet has moved its own items already.
  bullets = [one.content for one in fields if one.bullet and not items_of(text, one)]
  return replaced(text, moved | _shuffled(bullets, random))


def shuffle_sentences(text: str, random: np.random.Generator) -> str:
  """The sentences of each line in another order, then the lines themselves; bullets keep their numbers."""
  moved = {}
  for field in fields_of(text):
    # A quote is one thing: its sentences stand as they were read.
    if not items_of(text, field) and not field.label:
      moved |= _shuffled(sentences_of(text, field), random)
  text = replaced(text, moved)

  lines = [field.content if field.bullet else field.line for field in fields_of(text)]
  return replaced(text, _shuffled(lines, random))


def _shuffled(parts: list[Span], random: np.random.Generator) -> dict[tuple[int, int], str]:
  """What stands at the place of each part; another order wherever two parts differ."""
  texts = [one.text for one in parts]
  if len(set(texts)) < 2:
    return {}

  # Of two parts every second order is the one that there was.
  order = texts
  while order == texts:
    order = [texts[i] for i in random.permutation(len(texts))]
  return {(part.start, part.end): new for part, new in zip(parts, order)}
