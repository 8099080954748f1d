"""What a watched folder comes to: rates with intervals over transcripts, alerts, and what it cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_jax.auditing.grader import UNCLEAR, YES
from nla_jax.evaluation.intervals import bootstrap_mean
from nla_jax.watching.reference import p_value
from nla_jax.watching.watch import Settings, statistic


def summarise(
  lines: Sequence[dict[str, Any]], ordinary: Sequence[float], settings: Settings
) -> dict[str, Any]:
  """The numbers of a journal.

  Args:
    lines: of the journal.
    ordinary: statistics of benign transcripts; empty where there are none, and then there are no alerts.
    settings: how they were watched.

  Returns:
    JSON values: `transcripts` (each with its rate, statistic, p and whether it is an alert, the most striking first),
    `rates`, `benign`, `refused` and `cost`.
  """
  watched = [line for line in lines if "refused" not in line]
  rows = [_row(line, ordinary, settings) for line in watched]
  rows.sort(key=lambda row: (-row["statistic"], row["name"]))
  return {
    "transcripts": rows,
    "alerts": sum(row["alert"] for row in rows),
    "rates": {label: _rate(watched, label) for label in (YES, UNCLEAR)},
    "benign": {
      "transcripts": len(ordinary),
      "statistic": float(np.mean(ordinary)) if ordinary else None,
    },
    "refused": [
      {"name": line["name"], "reason": line["refused"]} for line in lines if "refused" in line
    ],
    "cost": {
      "explanations": sum(len(line["explained"]) for line in watched),
      "tokens": sum(line["tokens"] for line in watched),
      "seconds": {
        part: sum(line["seconds"][part] for line in watched)
        for part in ("first_pass", "explanations")
      },
    },
    "false_alarms": settings.false_alarms,
  }


def _row(line: dict[str, Any], ordinary: Sequence[float], settings: Settings) -> dict[str, Any]:
  found = statistic(line)
  p = p_value(found, ordinary) if ordinary else None
  said = [one for one in line["explained"] if one["label"] == YES]
  return {
    "name": line["name"],
    "tokens": line["tokens"],
    "explained": len(line["explained"]),
    "yes": len(said),
    "unclear": sum(one["label"] == UNCLEAR for one in line["explained"]),
    "rate": line["rates"][YES],
    "statistic": found,
    "p": p,
    "alert": p is not None and p <= settings.false_alarms,
    "evidence": said,
  }


def _rate(watched: Sequence[dict[str, Any]], label: str) -> dict[str, Any] | None:
  """The mean over transcripts of the estimated share of tokens, with its interval; None where none is known."""
  known = [
    (line["rates"][label], line["name"]) for line in watched if line["rates"][label] is not None
  ]
  if not known:
    return None
  values, names = zip(*known)
  found = bootstrap_mean(np.array(values), np.array(names)).to_dict()
  # A rate lies between 0 and 1, an interval by Student's t need not.
  ends = found["ci95"] and [min(max(end, 0.0), 1.0) for end in found["ci95"]]
  return {**found, "ci95": ends}
