"""What of a corpus was left out or put together, and why: counted once, said alike in terminal, manifest and report."""

from collections.abc import Mapping
from typing import NamedTuple


class Counts(NamedTuple):
  """Of a selection.

  Attributes:
    drawn: documents of the corpus that were looked at.
    too_short: of these, documents without a token at or behind `minimum`.
    minimum: the first position that may be chosen.
    without_rows: documents that are kept and have no token that may be taken.
    copies: documents with the tokens of another one.
    groups_joined: groups that went into others, since they share a text.
    twins: held-out rows with the context of a row that is trained on.
    held_out_rows: all held-out rows.
    groups: {split: groups of documents}.
  """

  drawn: int
  too_short: int
  minimum: int
  without_rows: int
  copies: int
  groups_joined: int
  twins: int = 0
  held_out_rows: int = 0
  groups: Mapping[str, int] = {}


class Part(NamedTuple):
  """What one source of a corpus of several gave.

  Attributes:
    documents: that it has.
    drawn: of these.
    kept: of these, long enough.
    rows: activations of these.
  """

  documents: int
  drawn: int
  kept: int
  rows: int


def part_notes(parts: Mapping[str, Part]) -> list[str]:
  """A sentence on each source of a mixture, with its share of the rows."""
  rows = sum(part.rows for part in parts.values())
  return [
    f"{name}: {part.drawn} of {part.documents} documents drawn, {part.kept} long enough, {part.rows} rows "
    f"({part.rows / rows:.1%})"
    for name, part in parts.items()
  ]


def notes(counts: Counts) -> list[str]:
  """Sentences on what was left out; none where all of the corpus is there."""
  kept, said = counts.drawn - counts.too_short, []
  if counts.too_short:
    said.append(
      f"{counts.too_short} of {counts.drawn} documents have no more than {counts.minimum} tokens and are left out"
    )
  if counts.without_rows:
    said.append(
      f"{counts.without_rows} of {kept} documents give no row: a chat template wrote what may not be taken, or too few "
      "of their words are behind it"
    )

  if counts.copies:
    where = "copies are kept in one split"
    if counts.groups_joined:
      where += f"; {counts.groups_joined} groups went into others"
    elif counts.twins:
      where = (
        "too few other texts to keep copies in one split, so that held-out numbers say nothing"
      )
    said.append(
      f"{counts.copies} of {kept} documents are copies, with the tokens of another one: {where}"
    )
  if counts.twins:
    # What was extracted elsewhere has its positions already.
    remedy = "; raise config.data.position_minimum" if counts.minimum else ""
    said.append(
      f"{counts.twins} of {counts.held_out_rows} held-out rows have the context of a row that is trained on: their "
      f"documents begin alike{remedy}"
    )

  # One document cannot tell how much documents differ.
  single = [split for split, groups in counts.groups.items() if groups == 1]
  if single:
    said.append(f"of one group of documents each: {', '.join(sorted(single))}")
  return said
