"""Items of suffix prediction: which of ten texts comes next, at held-out rows.

Each context has one fixed set of options in each arm, the same for every row of the table. Easy: the other nine are of
other groups, and knowing the topic is enough. Hard: they are of other documents of the same group (an article), so the
topic says nothing.
"""

from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.text import decode
from nla_jax.evaluation.subject import Subject

OPTIONS = 10
LENGTHS = (
  32,
  16,
)  # tokens of an option; the shorter where too few contexts have the longer behind them
_ENOUGH = 0.5  # of the items, for the longer


class Arm(NamedTuple):
  """The items of one arm.

  Attributes:
    name: easy or hard.
    index: [n] which of the subject's rows.
    options: of each item.
    rights: [n] which of them is right.
    length: tokens of an option.
  """

  name: str
  index: np.ndarray
  options: list[tuple[str, ...]]
  rights: np.ndarray
  length: int


def draw_arms(subject: Subject) -> list[Arm]:
  """The hard arm and the easy one, of at most as many items as the preset says; one without items is left out."""
  length, index = _contexts(subject)
  arms = [_arm(subject, name, index, length) for name in ("hard", "easy")]
  return [arm for arm in arms if len(arm.index)]


def _contexts(subject: Subject) -> tuple[int, np.ndarray]:
  """The length of options, and the rows with so many tokens behind them."""
  rest = np.array([len(one.tokens) for one in subject.documents]) - subject.positions - 1
  wanted = min(subject.settings.items, subject.n)

  for length in LENGTHS:
    found = np.flatnonzero(rest >= length)
    if len(found) >= _ENOUGH * wanted:
      break
  return length, found[:wanted]


def _arm(subject: Subject, name: str, index: np.ndarray, length: int) -> Arm:
  documents, tokenizer = subject.store.documents, subject.nla.pair.tokenizer
  held = [i for i, split in enumerate(documents.splits) if split == "held_out"]
  groups, sources = np.array(documents.groups), np.array(documents.sources)
  generator = np.random.default_rng([subject.seed, name == "hard"])

  kept, options, rights = [], [], []

  for i in index:
    own, at = subject.documents[i], subject.positions[i] + 1
    same_group = groups[held] == own.group
    near = same_group if name == "hard" else ~same_group & (sources[held] == own.source)
    places = [h for h in np.array(held)[near] if documents.ids[h] != own.id]

    # Never of the context's own document: what it quotes is no distractor of what follows.
    windows = _windows(documents, places, length, generator)
    truth = decode(tokenizer, own.tokens[at : at + length]).strip()
    others = _distinct([decode(tokenizer, one).strip() for one in windows], truth)
    if len(others) < OPTIONS - 1 or not truth:
      continue

    right = int(generator.integers(OPTIONS))
    others = others[: OPTIONS - 1]
    kept.append(i)
    options.append((*others[:right], truth, *others[right:]))
    rights.append(right)
  return Arm(name, np.array(kept, int), options, np.array(rights, int), length)


def _windows(documents, places: list[int], length: int, generator) -> list[np.ndarray]:
  """Pieces of documents that do not overlap, in random order: of each document one, then of each another."""
  pieces = []
  for place in generator.permutation(places)[: 4 * OPTIONS]:
    tokens = documents[int(place)].tokens
    # The first begins at a random place, so that not all of them are openings.
    start = int(generator.integers(max(len(tokens) % length, 0) + 1))
    starts = range(start, len(tokens) - length + 1, length)
    several = [tokens[s : s + length] for s in generator.permutation(starts)]
    pieces += [(turn, piece) for turn, piece in enumerate(several)]
  return [piece for _, piece in sorted(pieces, key=lambda one: one[0])]


def _distinct(texts: list[str], truth: str) -> list[str]:
  """Texts that are no other's twin, nor the truth's."""
  return [text for text in dict.fromkeys(texts) if text and text != truth]
