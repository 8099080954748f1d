"""Graders as data: what an explanation has to say to be a yes, by patterns of words in a YAML file."""

import functools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from nla_jax.errors import NLAError, first_line
from nla_jax.watching.watch import NO, UNCLEAR, YES, Grader

SUFFIX = ".yaml"
_LABELS = (YES, UNCLEAR)  # in the order in which they are tried; what matches neither is a no


def names() -> list[str]:
  """The graders that come with the package."""
  found = resources.files("nla_jax.watching") / "graders"
  return sorted(
    one.name.removesuffix(SUFFIX) for one in found.iterdir() if one.name.endswith(SUFFIX)
  )


def load_grader(source: str) -> Grader:
  """A grader by its name, or from a YAML file with lists of patterns under `yes` and `unclear`.

  Raises:
    NLAError: there is none of that name, the file holds something else, a pattern is none, or stands under both labels.
  """
  path = Path(source)
  if source in names():
    path = resources.files("nla_jax.watching") / "graders" / f"{source}{SUFFIX}"
  elif not path.is_file():
    raise NLAError(
      f"there is no grader {source!r}: expected {', '.join(names())}, or a YAML file with patterns under `yes` and "
      "`unclear`"
    )
  try:
    # Every scalar is a text: YAML takes a bare `yes` for true.
    found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
  except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
    raise NLAError(f"{source} cannot be read as YAML ({first_line(error)}): mend it") from error
  return functools.partial(grade, _patterns(found, source))


def grade(patterns: Mapping[str, list[re.Pattern]], text: str | None) -> str:
  """The label of an explanation; one that did not parse is unclear, not a no."""
  if text is None:
    return UNCLEAR
  for label in _LABELS:
    if any(one.search(text) for one in patterns[label]):
      return label
  return NO


def _patterns(found: Any, source: str) -> dict[str, list[re.Pattern]]:
  good = isinstance(found, dict) and found.get(YES) and set(found) <= set(_LABELS)
  lists = found.values() if good else ()
  if not good or not all(
    isinstance(one, list) and all(isinstance(p, str) for p in one) for one in lists
  ):
    raise NLAError(
      f"{source} is no grader: expected lists of patterns under `yes` and, if wanted, `unclear`"
    )

  patterns = {label: found.get(label, []) for label in _LABELS}
  both = {one.casefold() for one in patterns[YES]} & {one.casefold() for one in patterns[UNCLEAR]}
  if both:
    raise NLAError(
      f"{source}: the pattern {min(both)!r} stands under yes and under unclear; leave one of them out"
    )
  try:
    return {
      label: [re.compile(one, re.IGNORECASE) for one in several]
      for label, several in patterns.items()
    }
  except re.error as error:
    raise NLAError(
      f"{source}: the pattern {error.pattern!r} is no regular expression ({error}): mend it"
    ) from error
