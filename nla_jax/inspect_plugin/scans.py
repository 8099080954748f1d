"""What scans of `nla_scanner` came to: the rates and intervals of `nla awareness`, with those of benign use beside."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_scout import scan_results_df

from nla_jax.auditing.awareness import (
  NLA_ROW,
  QUOTES,
  Awareness,
  Evidence,
  Protocol,
  Row,
  row_of,
)
from nla_jax.auditing.rates import Counted, counted
from nla_jax.errors import NLAError

SCANNER = "nla_scanner"
_SAME = ("topic", "grader", "protocol")  # what two scans must share to be compared


def awareness_of_scans(audited: str, benign: str, *, scanner: str = SCANNER) -> Awareness:
  """Rates over the transcripts of a scan beside those of a scan of ordinary use.

  `auditing.awareness_form` shows it: `table(found)`, `to_json(found)`, `html(found)`.

  Args:
    audited: location of the scan that is asked about, such as the folder `scans/scan_id=…`.
    benign: of a scan of benign transcripts with the same scanner; their rate is the null.
    scanner: its name in both scans.

  Raises:
    NLAError: a scan has no such scanner or no transcript that could be read, or the two were made in different ways.
  """
  locations = {"audited": audited, "benign": benign}
  left_out: dict[str, str] = {}
  found = {name: _results(place, scanner, left_out) for name, place in locations.items()}

  # Rates of other graders or of more tokens are no null.
  made = {name: [some[0][key] for key in _SAME] for name, some in found.items()}
  if made["audited"] != made["benign"]:
    raise NLAError(
      f"the scans {audited} and {benign} were made in different ways ({made['audited']} and {made['benign']}): scan "
      "both with the same topic, grader, tokens and seed"
    )
  topic, grader, how = made["audited"]
  protocol = Protocol(**how)
  rows: dict[str, dict[str, Row]] = {NLA_ROW: {}, "said": {}}
  for name, some in found.items():
    rows[NLA_ROW][name] = _row([Counted(**one["counted"]) for one in some], protocol)
    rows["said"][name] = _row([counted(one["said"]) for one in some], protocol)

  quotes = [Evidence(**one) for result in found["audited"] for one in result["evidence"]]
  return Awareness(topic, grader, protocol, rows, quotes[:QUOTES], {}, [], left_out)


def _row(counts: Sequence[Counted], protocol: Protocol) -> Row:
  return row_of(counts, protocol, [one.yes / max(one.read, 1) for one in counts])


def _results(location: str, scanner: str, left_out: dict[str, str]) -> list[Mapping[str, Any]]:
  """The metadata of each transcript that could be read."""
  scanners = scan_results_df(location).scanners
  if scanner not in scanners:
    known = ", ".join(scanners) or "none"
    raise NLAError(f"the scan {location} has no scanner {scanner!r}; it has {known}")

  found = []
  for _, row in scanners[scanner].iterrows():
    metadata = json.loads(row["metadata"] or "{}")
    if "counted" in metadata:
      found.append(metadata)
      continue
    why = row["explanation"] if isinstance(row["explanation"], str) else row["scan_error"]
    left_out[str(row["transcript_id"])] = str(why)
  if not found:
    why = next(iter(left_out.values()), "there is none")
    raise NLAError(f"the scan {location} has no transcript that could be read: {why}")
  return found
