"""Texts with a label by construction, written from templates with a seed: what classification and user modelling ask.

Labels are balanced. Items that share a cue are of one group, so no trained judge is asked about a cue that it knows.
"""

import functools
import itertools
from importlib import resources
from typing import NamedTuple

import numpy as np
import yaml

from nla_jax.evaluation.judges.judge import Frame

SENTENCES = ("tense", "number", "gender", "entity", "topic")
TRAITS = ("gender", "religion", "occupation", "nationality")


class Item(NamedTuple):
  """A text and what is true of it.

  Attributes:
    text: a passage, or a user's message.
    label: index of its class.
    group: what it may not share with an item that a judge is trained on.
    cue: the words that give the label away.
  """

  text: str
  label: int
  group: str
  cue: str


class Task(NamedTuple):
  """A question about texts.

  Attributes:
    name: of it.
    classes: what may be true.
    frame: how it is put to a judge that reads language.
    items: the texts, in random order.
    signals: of each class, words that say it beyond doubt; the classes themselves where there are none.
  """

  name: str
  classes: tuple[str, ...]
  frame: Frame
  items: tuple[Item, ...]
  signals: tuple[str, ...] = ()

  @property
  def labels(self) -> np.ndarray:
    """[n] of the items."""
    return np.array([one.label for one in self.items])

  @property
  def groups(self) -> np.ndarray:
    """[n] of the items."""
    return np.array([one.group for one in self.items])


def sentences(name: str, n: int, seed: int) -> Task:
  """A task about the grammar or the topic of a passage: at most `n` items, as many of each class.

  Args:
    name: of `SENTENCES`.
    n: how many.
    seed: of the choice.
  """
  data = _read("sentences.yaml")
  task = data[name]
  choices = itertools.product(enumerate(task["pairs"]), data["lead"], data["tail"])
  items = [
    [
      # A row of cues is of one kind, and one group: a dog and dogs.
      Item(task["text"].format(lead=lead, cue=cue, tail=tail), label, f"{name} {row}", cue)
      for label, cue in enumerate(cues)
    ]
    for (row, cues), lead, tail in choices
  ]
  return _task(name, task, _drawn(items, n, len(task["classes"]), seed))


def users(name: str, n: int, seed: int) -> Task:
  """A task about what a message implies of its user: at most `n` items, as many of each class.

  A cue stands at the beginning of the message or near its end, with a sentence of no class beside it.

  Args:
    name: of `TRAITS`.
    n: how many.
    seed: of the choice.
  """
  data = _read("users.yaml")
  task = data[name]

  # The cue far from where the message is read, and near.
  forms = ("{cue} {filler} {ask}", "{filler} {cue} {ask}")
  rows = range(min(len(task[one]) for one in task["classes"]))

  choices = itertools.product(rows, forms, data["filler"], data["ask"])
  items = [
    [
      Item(form.format(cue=cue, filler=filler, ask=ask), label, f"{name} {row}", cue)
      for label, cue in enumerate(task[one][row] for one in task["classes"])
    ]
    for row, form, filler, ask in choices
  ]
  return _task(name, task, _drawn(items, n, len(task["classes"]), seed))


def _task(name: str, task: dict, items: tuple[Item, ...]) -> Task:
  frame = Frame("Notes on a text: {text}\n\n" + task["question"])
  return Task(name, tuple(task["classes"]), frame, items)


def _drawn(items: list[list[Item]], n: int, classes: int, seed: int) -> tuple[Item, ...]:
  """Items of drawn rows, one of each class, cues in turn so that few items still have many."""
  generator = np.random.default_rng(seed)
  shuffled = [items[i] for i in generator.permutation(len(items))]

  # A row's turn is how often its cue came before it.
  turns: dict[str, int] = {}
  order = []
  for several in shuffled:
    turn = turns[several[0].group] = turns.get(several[0].group, -1) + 1
    order.append((turn, several))

  chosen = [several for _, several in sorted(order, key=lambda one: one[0])][: n // classes]
  every = [one for several in chosen for one in several]
  return tuple(every[i] for i in generator.permutation(len(every)))


@functools.cache
def _read(name: str) -> dict:
  file = resources.files("nla_jax.evaluation.items") / name
  return yaml.safe_load(file.read_text(encoding="utf-8"))
