"""Multiple-choice questions: transcripts with a mark whose meaning is never stated, and questions of who means harm."""

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np
import yaml

LETTERS = ("A", "B", "C", "D")
MARK = "■"
_ROUNDS = 8  # answered questions before the one that is asked


class Choice(NamedTuple):
  """A question with its options.

  Attributes:
    question: in words.
    options: four.
    right: index of the right one.
  """

  question: str
  options: tuple[str, ...]
  right: int


class Transcript(NamedTuple):
  """Answered questions, and one that is asked.

  Attributes:
    text: with the mark, up to the answer's letter.
    plain: the same without any mark.
    rule: "right" or "wrong": what the mark means in it.
    marked: index of the option that is marked in the last question.
    right: index of the right one there.
    mark_end: characters of `text` up to the last mark, with it.
    group: the last question.
  """

  text: str
  plain: str
  rule: str
  marked: int
  right: int
  mark_end: int
  group: str


class Asked(NamedTuple):
  """A question behind a prefix.

  Attributes:
    text: up to the answer's letter.
    right: index of the right option.
    harmful: whether the prefix means harm.
    group: the question.
  """

  text: str
  right: int
  harmful: bool
  group: str


def transcripts(n: int, seed: int) -> list[Transcript]:
  """Pairs of transcripts with the same questions: in one the mark stands at right options, in the other at wrong ones.

  Args:
    n: of both kinds together.
    seed: of the questions, their options' order, and which wrong options are marked.
  """
  generator = np.random.default_rng(seed)
  every, found = _questions(), []
  for i in range(n // 2):
    asked = every[i % len(every)]
    others = [q for q in every if q is not asked]
    drawn = [others[j] for j in generator.permutation(len(others))[:_ROUNDS]]
    rounds = [_shuffled(q, generator) for q in (*drawn, asked)]

    # Both transcripts of a pair share all but the mark.
    wrong = [int(generator.choice([k for k in range(4) if k != one.right])) for one in rounds]
    for rule in ("right", "wrong"):
      marks = [one.right for one in rounds] if rule == "right" else wrong
      text, plain = _written(rounds, marks), _written(rounds, [None] * len(rounds))
      last, end = rounds[-1], text.rindex(MARK) + len(MARK)
      found.append(Transcript(text, plain, rule, marks[-1], last.right, end, last.question))
  return found


def asked(n: int, seed: int) -> list[Asked]:
  """Questions, each once behind a prefix that means harm and once behind one like it that does not.

  Args:
    n: of both kinds together.
    seed: of the prefixes and the options' order.
  """
  generator = np.random.default_rng(seed)
  data, every, found = _read(), _questions(), []
  for i in range(n // 2):
    question = _shuffled(every[i % len(every)], generator)
    prefix = int(generator.integers(len(data["harmful"])))

    for harmful in (True, False):
      before = data["harmful" if harmful else "neutral"][prefix]
      text = f"{before}\n\n{_lines(question, None)}\nAnswer:"
      found.append(Asked(text, question.right, harmful, question.question))
  return found


def _shuffled(question: list[str], generator: np.random.Generator) -> Choice:
  """The options in random order; the file has the right one first."""
  order = generator.permutation(4)
  options = tuple(str(question[1 + k]) for k in order)
  return Choice(question[0], options, int(np.flatnonzero(order == 0)[0]))


def _written(rounds: list[Choice], marks: list[int | None]) -> str:
  """The rounds as text, all but the last one with its right answer."""
  parts = []
  for one, mark in zip(rounds, marks):
    parts.append(f"{_lines(one, mark)}\nAnswer: {LETTERS[one.right]}")
  return "\n\n".join(parts).removesuffix(f" {LETTERS[rounds[-1].right]}")


def _lines(one: Choice, mark: int | None) -> str:
  lines = [
    f"{LETTERS[k]}) {option}" + (f" {MARK}" if k == mark else "")
    for k, option in enumerate(one.options)
  ]
  return "\n".join([f"Question: {one.question}", *lines])


def _questions() -> list[list[str]]:
  return _read()["questions"]


@functools.cache
def _read() -> dict:
  file = resources.files("nla_jax.evaluation.items") / "questions.yaml"
  return yaml.safe_load(file.read_text(encoding="utf-8"))
