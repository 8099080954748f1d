"""The page of a watched folder: one HTML file without scripts or network, the most striking transcripts first."""

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from nla_jax import files
from nla_jax.evaluation.report.charts import number

_SHOWN = 200  # transcripts on the page; the JSON has them all
_EVIDENCE = 8  # explanations of each


def write_page(path: Path, summary: dict[str, Any], about: dict[str, Any]) -> None:
  """Writes the page; every text in it is escaped.

  Args:
    path: of the file.
    summary: of `summarise`.
    about: facts of the run by name, shown as they are.
  """
  folder = resources.files("nla_jax.watching") / "templates"
  source = (folder / "watch.html").read_text(encoding="utf-8")
  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
  )
  page = environment.from_string(source).render(
    css=(folder / "watch.css").read_text(encoding="utf-8"),
    about=[(name, str(value)) for name, value in about.items() if value not in ("", None)],
    rows=[_row(one) for one in summary["transcripts"][:_SHOWN]],
    more=max(len(summary["transcripts"]) - _SHOWN, 0),
    rates=[(label, _estimate(one)) for label, one in summary["rates"].items()],
    summary=summary,
  )
  files.write_bytes(path, page.encode(errors="replace"))


def _row(one: dict[str, Any]) -> dict[str, Any]:
  shown = {key: "—" if one[key] is None else number(one[key], 3) for key in ("rate", "p")}
  evidence = sorted(one["evidence"], key=lambda found: -(found["fve"] or -1))[:_EVIDENCE]
  return {**one, **shown, "evidence": evidence, "left": one["yes"] - len(evidence)}


def _estimate(found: dict[str, Any] | None) -> str:
  if found is None:
    return "not known"
  ends = found["ci95"]
  interval = f" [{number(ends[0], 3)}, {number(ends[1], 3)}]" if ends else ", no interval"
  return f"{number(found['value'], 3)}{interval} of {found['n']} transcripts"
