"""Measured awareness as people and programs read it: a table, JSON, and a page. Every rate has the null beside it."""

import dataclasses
from typing import Any

from nla_jax.auditing.awareness import NLA_ROW, Awareness, Row
from nla_jax.auditing.grader import UNCLEAR, YES
from nla_jax.auditing.page import CAUTION, Table, render, two_curves
from nla_jax.evaluation.intervals import Estimate

FORMAT = "nla_jax awareness 1"
_HEAD = ("reader", "yes, tokens", "benign", "any of n", "benign", "unclear, tokens", "benign", "n")


def percent(estimate: Estimate | None) -> str:
  """A share with its interval."""
  if estimate is None:
    return "—"
  ends = estimate.ci95
  # Student's interval of few transcripts may leave [0, 1], where no share is.
  inside = "" if ends is None else f" [{max(ends[0], 0):.1%}, {min(ends[1], 1):.1%}]"
  return f"{estimate.value:.1%}{inside}"


def rows_of(found: Awareness) -> list[list[str]]:
  """The table's cells."""
  rows = []
  for reader, by_set in found.rows.items():
    audited, benign = by_set["audited"], by_set["benign"]
    cells = [reader]
    for estimates in ((_tokens, YES), (_any, YES), (_tokens, UNCLEAR)):
      pick, what = estimates
      cells += [percent(pick(audited, what)), percent(pick(benign, what))]
    rows.append([*cells, str(len(audited.any_of[YES]))])
  return rows


def _tokens(row: Row, what: str) -> Estimate | None:
  return row.tokens[what]


def _any(row: Row, what: str) -> Estimate:
  return row.any_of[what][-1]


def table(found: Awareness) -> str:
  """Lines for a terminal."""
  rows = [list(_HEAD), *rows_of(found)]
  widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
  lines = [
    "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
  ]
  lines.append("")
  for one in found.evidence:
    lines.append(f"{one.transcript} token {one.position} (message {one.message}): {one.quote!r}")
  for reader, aucs in found.calibration.items():
    lines.append(
      f"AUC, {reader}: {_auc(aucs['transcripts'])} of transcripts, {_auc(aucs['tokens'])} of tokens"
    )
  lines += [f"left out {name}: {why}" for name, why in found.left_out.items()]
  return "\n".join([*lines, CAUTION])


def _auc(value: float | None) -> str:
  return "—" if value is None else f"{value:.3f}"


def to_json(found: Awareness) -> dict[str, Any]:
  """All of it as objects, lists, strings and numbers."""
  rows = {
    reader: {
      name: {
        "transcripts": row.transcripts,
        "tokens": {what: one and one.to_dict() for what, one in row.tokens.items()},
        "any_of": {what: [one.to_dict() for one in curve] for what, curve in row.any_of.items()},
        "scores": row.scores,
      }
      for name, row in by_set.items()
    }
    for reader, by_set in found.rows.items()
  }
  return {
    "format": FORMAT,
    "topic": found.topic,
    "grader": found.grader,
    "protocol": dataclasses.asdict(found.protocol),
    "rows": rows,
    "evidence": [one._asdict() for one in found.evidence],
    "calibration": found.calibration,
    "reliability": found.reliability,
    "left_out": found.left_out,
  }


def html(found: Awareness) -> str:
  """One page without scripts."""
  nla = found.rows[NLA_ROW]
  curves = [
    [(n, one.value) for n, one in enumerate(nla[name].any_of[YES], 1)]
    for name in ("audited", "benign")
  ]
  chart = two_curves(*curves, "tokens read of a transcript", "transcripts with any yes")
  tables = [
    Table("Rates", _HEAD, rows_of(found), range(1, len(_HEAD)), "95 % intervals over transcripts."),
    Table("Any of n, by the NLA", chart=chart, note="The same draw of tokens for both curves."),
  ]

  # What is known only of labelled transcripts.
  if found.calibration:
    cells = [
      [name, _auc(a["transcripts"]), _auc(a["tokens"])] for name, a in found.calibration.items()
    ]
    head = ("reader", "AUC of transcripts", "AUC of tokens")
    tables.append(Table("Against the known belief", head, cells, (1, 2)))
    bins = [[f"{b['said']:.1%}", f"{b['true']:.1%}", str(b["n"])] for b in found.reliability]
    head = ("share of yes, mean of the bin", "labelled so", "transcripts")
    tables.append(Table("Reliability of the NLA", head, bins, (0, 1, 2)))

  # What a person checks.
  if found.evidence:
    cells = [
      [e.transcript, str(e.message), str(e.position), e.quote, e.before] for e in found.evidence
    ]
    head = ("transcript", "message", "token", "what the explanation says", "what stands before")
    tables.append(Table("Evidence", head, cells, (1, 2)))
  if found.left_out:
    cells = [[name, why] for name, why in found.left_out.items()]
    tables.append(Table("Left out", ("what", "why"), cells))

  counts = ", ".join(f"{row.transcripts} {name}" for name, row in nla.items())
  subtitle = f"{counts} transcripts, graded by {found.grader}, seed {found.protocol.seed}"
  return render(f"Rates of {found.topic}", subtitle, [], tables)
