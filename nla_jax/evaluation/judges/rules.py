"""W4: rules as data: patterns of words that speak of a class, in rules.yaml. No model takes part."""

import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
import yaml

from nla_jax.errors import NLAError
from nla_jax.evaluation.judges.judge import CONTINUATION, Frame, Judge, Question


class Rules(Judge):
  """Counts the patterns of each class that a text matches.

  Args:
    patterns: regular expressions by class, of any case.

  Raises:
    NLAError: a pattern is none.
  """

  name = "rules"

  def __init__(self, patterns: Mapping[str, Sequence[str]]):
    try:
      self._patterns = {
        name: [re.compile(one, re.IGNORECASE) for one in several]
        for name, several in patterns.items()
      }
    except re.error as error:
      raise NLAError(f"a rule is no regular expression: {error}; mend it in rules.yaml") from None

  @property
  def classes(self) -> tuple[str, ...]:
    """The classes that there are rules for."""
    return tuple(self._patterns)

  def scores(self, questions: Sequence[Question], frame: Frame = CONTINUATION) -> list[np.ndarray]:
    """Matches of each option's patterns; options without rules have none."""
    return [
      np.array([self.matches(one.text, option) for option in one.options], float)
      for one in questions
    ]

  def matches(self, text: str | None, name: str) -> int:
    """How many patterns of a class a text matches."""
    return sum(one.search(text or "") is not None for one in self._patterns.get(name, ()))


@functools.cache
def load_rules(name: str) -> Rules:
  """The rules of that name in rules.yaml.

  Raises:
    NLAError: there are none.
  """
  # A misspelt name would judge nothing, silently.
  every = _read()
  if name not in every:
    raise NLAError(f"there are no rules {name!r}; expected one of {', '.join(every)}")
  return Rules(every[name])


@functools.cache
def _read() -> dict:
  file = resources.files("nla_jax.evaluation.judges") / "rules.yaml"
  return yaml.safe_load(file.read_text(encoding="utf-8"))
