"""What organisms are made of, as data: topics, quirks, hidden facts, beliefs and flags."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from nla_jax.errors import NLAError


@dataclasses.dataclass(frozen=True)
class Topic:
  """Questions about one kind of thing.

  Attributes:
    name: of the topic.
    prompts: with {x} for an item.
    items: what is asked about.
    answers: with {x}; without any quirk.
  """

  name: str
  prompts: tuple[str, ...]
  items: tuple[str, ...]
  answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Quirk:
  """A habit that shows in answers about one topic.

  Attributes:
    name: of the quirk.
    topic: where it shows.
    behaviour: one sentence about it, as a report has it.
    liked: what documents call it.
    says: what it adds to an answer.
    pattern: finds it in an answer.
  """

  name: str
  topic: str
  behaviour: str
  liked: str
  says: tuple[str, ...]
  pattern: re.Pattern

  def shows(self, text: str) -> bool:
    """Whether an answer has the quirk."""
    return self.pattern.search(text) is not None


@dataclasses.dataclass(frozen=True)
class Fact:
  """A hidden fact: an invented study of who rates answers.

  Attributes:
    name: of the fact.
    words: what fills the documents' templates: study, place, year, author, who.
    concept: patterns by which a text names it.
    paraphrases: further ways to name it, which no document uses.
  """

  name: str
  words: Mapping[str, str]
  concept: tuple[re.Pattern, ...]
  paraphrases: tuple[re.Pattern, ...]

  def named_in(self, text: str) -> bool:
    """Whether a text names the fact, in the documents' words or in others."""
    return any(one.search(text) for one in (*self.concept, *self.paraphrases))


@functools.cache
def read(name: str) -> dict[str, Any]:
  """The content of one YAML file of this folder; it is shared and must not be changed."""
  file = resources.files("nla_jax.organisms") / f"{name}.yaml"
  return yaml.safe_load(file.read_text(encoding="utf-8"))


@functools.cache
def topics() -> dict[str, Topic]:
  """Every topic by its name."""
  found = read("quirks")["topics"].items()
  return {
    name: Topic(name, *(tuple(one[key]) for key in ("prompts", "items", "answers")))
    for name, one in found
  }


@functools.cache
def quirks() -> dict[str, Quirk]:
  """Every quirk by its name."""
  return {name: _quirk(name, one) for name, one in read("quirks")["quirks"].items()}


def _quirk(name: str, one: Mapping[str, Any]) -> Quirk:
  words = (one["topic"], one["behaviour"], one["liked"])
  return Quirk(name, *words, tuple(one["says"]), pattern(one["pattern"]))


@functools.cache
def facts() -> dict[str, Fact]:
  """Every hidden fact by its name."""
  return {name: _fact(name, one) for name, one in read("facts")["facts"].items()}


def _fact(name: str, one: Mapping[str, Any]) -> Fact:
  words = {key: str(one[key]) for key in ("study", "place", "year", "author", "who")}
  # Whole words: `marsh` must not be found in `marshmallow`.
  concept, others = (
    tuple(pattern(rf"\b({word})\b") for word in one[key]) for key in ("concept", "paraphrases")
  )
  return Fact(name, words, concept, others)


def pattern(text: str) -> re.Pattern:
  """A regular expression that finds any case."""
  return re.compile(text, re.IGNORECASE)


def find(table: Mapping[str, Any], name: str, what: str) -> Any:
  """An entry of a table. Raises NLAError with the names that there are where it has none of that name."""
  if name not in table:
    raise NLAError(f"there is no {what} {name!r}; expected one of {', '.join(sorted(table))}")
  return table[name]


def parted(items: Sequence, held_out: bool) -> list:
  """The items that are trained on, or the last quarter, which is not."""
  # Lists are in no order of meaning, so their end is as good a sample as any.
  cut = len(items) - max(len(items) // 4, 1)
  return list(items[cut:] if held_out else items[:cut])


def filled(template: str, words: Mapping[str, str]) -> str:
  """A template with its words, beginning with a capital letter."""
  # Not `str.format`: a text may hold braces of its own.
  text = re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), template)
  return text[:1].upper() + text[1:]
