"""The game as one HTML page that needs no network. Every text in it may be hostile, so jinja2 escapes all of it."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nla_jax import files
from nla_jax.organisms.card import number

_EXAMPLES = 12  # reports that are shown


def write_page(path: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes the page.

  Args:
    path: of the file.
    summary: of `summary.summarised`.
    rows: of `play`.
  """
  template = (resources.files("nla_jax.game") / "templates" / "audit.html").read_text("utf-8")
  css = (resources.files("nla_jax.evaluation.report") / "templates" / "report.css").read_text(
    "utf-8"
  )

  # A hole in the page would look as if nothing was measured.
  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
  environment.filters["number"] = number

  last = [row for row in rows if row["budget"] == summary["budget"]]
  # Spread over the games, so that the first organism does not fill the page.
  step = max(len(last) // _EXAMPLES, 1)
  page = environment.from_string(template).render(
    css=Markup(css), summary=summary, examples=last[::step][:_EXAMPLES]
  )
  files.write_bytes(path, page.encode(errors="replace"))
