"""A page of tables and charts without scripts. Texts of transcripts and models may be hostile: all of it is escaped."""

from collections.abc import Collection, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from nla_jax.axes import Axes, Points, path, svg

CAUTION = (
  "An explanation is drawn by a model and can be wrong. A rate says how often a grader finds a topic in explanations, "
  "not how likely the target believes anything. Compare it with the benign and the shuffled rate, not with zero."
)
_BOX = (50.0, 22.0, 600.0, 230.0)  # left, top, right, bottom of the plot


class Table(NamedTuple):
  """A part of the page.

  Attributes:
    name: its heading.
    head: names of the columns.
    rows: cells.
    numbers: indices of columns that are numbers.
    note: a sentence above it.
    chart: above the table; "" for none.
  """

  name: str
  head: Sequence[str] = ()
  rows: Sequence[Sequence[str]] = ()
  numbers: Collection[int] = ()
  note: str = ""
  chart: Markup | str = ""


def render(title: str, subtitle: str, lines: Sequence[str], tables: Sequence[Table]) -> str:
  """The whole page."""
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  source = (resources.files("nla_jax.auditing") / "templates" / "page.html").read_text("utf-8")
  fields: dict[str, Any] = {"lines": lines, "tables": tables, "caution": CAUTION}
  page = environment.from_string(source).render(title=title, subtitle=subtitle, **fields)
  # A token may be half a character, which no file can hold.
  return page.encode("utf-8", "replace").decode("utf-8")


def two_curves(first: Points, second: Points, x_label: str, y_label: str) -> Markup:
  """Two curves of shares, the second one the null."""
  every = [*first, *second]
  top = max([y for _, y in every], default=1.0) or 1.0
  axes = Axes((1, max([x for x, _ in every], default=2.0)), (0.0, min(1.0, 1.1 * top)), _BOX)
  parts = axes.grid(x_label, y_label)
  for points, name in ((second, "second"), (first, "first")):
    # A path of one point is invisible.
    drawn = [(axes.x(x), axes.y(y)) for x, y in points]
    parts.append(path(drawn if len(drawn) > 1 else drawn * 2, class_=name))
  return svg(620, 280, f"{y_label} against {x_label}", parts)
