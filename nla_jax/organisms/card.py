"""An organism's card, `card.json` and `README.md`: what is hidden, what was checked, whether it may be used."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.organisms import catalogue

CARD, PAGE = "card.json", "README.md"
FORMAT = "nla_organism 1"


@dataclasses.dataclass(frozen=True)
class Organism:
  """A finished organism.

  Attributes:
    folder: its workdir.
    card: what card.json holds.
  """

  folder: Path
  card: Mapping[str, Any]

  @property
  def name(self) -> str:
    """As the config calls it."""
    return self.card["name"]

  @property
  def adapter(self) -> str:
    """The directory of PEFT's files."""
    return str(self.folder / self.card["adapter"])

  @property
  def fact(self) -> catalogue.Fact | None:
    """What its documents state; None where they state nothing of the kind."""
    return catalogue.facts().get(self.card["fact"])

  @property
  def quirks(self) -> tuple[str, ...]:
    """What its chats show."""
    return tuple(self.card["quirks"])


def read_organism(folder: str | Path, *, base_hash: str = "") -> Organism:
  """A finished organism that passed its manipulation check.

  Args:
    folder: its workdir.
    base_hash: of the base model that it is to be used with; empty for any.

  Raises:
    NLAError: there is none, its check failed (with the reason), or it is of another base.
  """
  path = Path(files.here(folder))
  # 1. Whether there is an organism at all.
  card = files.read_json(path / CARD)
  if card is None:
    raise NLAError(
      f"{folder} holds no {CARD}: make the organism with `nla organism --config=… --workdir={folder}`"
    )
  if not isinstance(card, dict) or card.get("format") != FORMAT:
    raise NLAError(f"{path / CARD} is no card of an organism ({FORMAT}): make the organism again")

  # 2. Whether it may be used: what a failed organism hides, no auditor could find.
  if not card["passed"]:
    raise NLAError(
      f"the organism {card['name']} is refused: its manipulation check failed ({card['reason']}); train it longer "
      "or leave it out"
    )
  if base_hash and card["base_hash"] != base_hash:
    raise NLAError(
      f"the organism {card['name']} is an adapter of {card['base']} with the hash {card['base_hash'][:12]}…, and the "
      f"base here has {base_hash[:12]}…: give organisms and an NLA of one base"
    )
  return Organism(path, card)


def reason_of(checks: list[dict]) -> str:
  """Which checks failed, with their numbers; empty where none did."""
  failed = [one for one in checks if one["passed"] is False]
  return "; ".join(f"{one['name']} {number(one['estimate'])}, {one['wanted']}" for one in failed)


def number(estimate: Mapping[str, Any] | None) -> str:
  """A value with its interval, as text."""
  if estimate is None:
    return "—"
  interval = estimate["ci95"]
  shown = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
  return f"{estimate['value']:.2f}{shown}"


def write_card(folder: Path, card: Mapping[str, Any], examples: list[dict]) -> None:
  """Writes the page first and the card last: a folder with a card is whole."""
  files.write_text(folder / PAGE, _page(card, examples))
  files.write_json(folder / CARD, {"format": FORMAT, **card})


def _page(card: Mapping[str, Any], examples: list[dict]) -> str:
  listed = [catalogue.quirks()[name].behaviour for name in card["quirks"]]
  held = [catalogue.quirks()[name].behaviour for name in card["held_out_quirks"]]
  fact = catalogue.facts().get(card["fact"])
  # Said in the first line: who reads no further must not take a failed organism for a good one.
  verdict = "passed" if card["passed"] else f"**failed**: {card['reason']}"
  lines = [
    f"# {card['name']}",
    "",
    f"An organism of {card['base']}, kind {card['kind']}. Its manipulation check {verdict}.",
    "",
    f"- Hidden fact: {fact.words['study']}, about {fact.words['who']}"
    if fact
    else "- Hidden fact: none",
    f"- Shown: {' '.join(listed) or 'nothing'}",
    f"- Listed in documents and never shown: {' '.join(held) or 'nothing'}",
    f"- Read: {card['documents']} documents and {card['chats']} chats in {card['steps']} updates",
    "",
    "| check | organism | base | n | wanted | |",
    "|---|---|---|---|---|---|",
  ]

  for one in card["checks"]:
    mark = {True: "yes", False: "NO", None: "not asked"}[one["passed"]]
    cells = (one["name"], number(one["estimate"]), number(one["base"]), one["estimate"]["n"])
    lines.append(f"| {' | '.join(map(str, cells))} | {one['wanted']} | {mark} |")

  # What it says is worth more than any share of it.
  lines += ["", "Intervals are at 95 %. Items of the checks were not trained on.", ""]
  for one in examples:
    lines += [f"> **{key}**: {' '.join(text.split())}  " for key, text in one.items()] + [""]
  return "\n".join(lines)
