"""What cannot be shown costs its own place in the report, never the page: a sentence with the error stands there."""

import html
from collections.abc import Callable
from typing import Any, TypeVar

from markupsafe import Markup

Shown = TypeVar("Shown")


def drawn(draw: Callable[..., Markup], *arguments: Any, **options: Any) -> Markup:
  """A chart; where it cannot be drawn, a sentence that names the error."""
  try:
    return draw(*arguments, **options)
  # Numbers of a run may be anything, and whatever a chart raises on them is no reason to lose the others.
  except Exception as error:
    return Markup(
      f'<p class="missing">This chart could not be drawn: {html.escape(_named(error))}.</p>'
    )


class Sections:
  """The sections of a page, each made by a function of its own.

  Attributes:
    failures: a sentence for each section that could not be made.
  """

  def __init__(self):
    self.failures: list[str] = []

  def made(self, name: str, otherwise: Shown, make: Callable[..., Shown], *arguments: Any) -> Shown:
    """What `make` gives; where it raises, `otherwise`, and the error is kept in `failures`."""
    try:
      return make(*arguments)
    except Exception as error:
      self.failures.append(f"{name} could not be shown: {_named(error)}.")
      return otherwise


def _named(error: Exception) -> str:
  first = next(iter(str(error).splitlines()), "")
  return f"{type(error).__name__}: {first}" if first else type(error).__name__
