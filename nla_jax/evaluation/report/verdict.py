"""What the numbers of an evaluation say, in sentences: the report's headline, and the reasons to doubt it.

Rules, not judgement: each finding follows from a comparison of intervals that is stated with it. Intervals of two
methods are compared as if independent, which errs on the side of "not shown".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nla_jax.evaluation.report.charts import number

# key -> (label, what it is). The order is the order of the report.
RESULTS = {
  "round_trip": (
    "Round trip, sampled",
    "Activation to AV to AR, the explanation sampled at temperature 1 from the AV's own distribution. The headline.",
  ),
  "greedy": ("Round trip, greedy", "The same with the likeliest token at every step."),
  "round_trip_sft": (
    "Round trip before RL",
    "The same, sampled, with the supervised checkpoints that reinforcement learning started from.",
  ),
}
REFERENCES = {
  "teacher_text": (
    "Teacher's text",
    "The AR on text that the teacher wrote from the document. The AV plays no part: this is the AR's own skill.",
  ),
}
CONTROLS = {
  "shuffled_vector": (
    "Shuffled vector",
    "The AV explains an activation of another document, and the text is scored against this one.",
  ),
  "zero_vector": (
    "Zero vector",
    "A vector of zeros is injected: what the AV says when it is given nothing.",
  ),
  "mean_vector": (
    "Mean vector",
    "The mean activation is injected: what the AV says of no activation in particular.",
  ),
  "empty_text": (
    "Empty explanation",
    "The AR reads an empty explanation: what it assumes without being told.",
  ),
  "retrieval": (
    "Nearest-neighbour retrieval",
    "The AR reads the teacher's text of the training activation nearest to this one: looking up, without an AV.",
  ),
  "mean_per_last_token": (
    "Mean per last token",
    "No text is read: the answer is the mean direction of training activations on the same token.",
  ),
}
GAIN = "gain_of_rl"  # a paired difference of two FVEs, kept beside them in metrics.json
_KINDS = (
  ("fve", RESULTS, "result"),
  ("fve", REFERENCES, "reference"),
  ("controls", CONTROLS, "control"),
)


def estimate(value: Any) -> dict[str, Any] | None:
  """{"value", "ci95" (low, high) or None, "n" or None} of an estimate or a bare number; None if not a finite number."""
  fields = value if isinstance(value, Mapping) else {"value": value}
  point, ci95 = fields.get("value"), fields.get("ci95")
  try:
    point = float(point)
    ci95 = tuple(float(end) for end in ci95) if ci95 is not None else None
  except (TypeError, ValueError):
    return None
  if not math.isfinite(point):
    return None
  if ci95 is not None and not (len(ci95) == 2 and all(map(math.isfinite, ci95))):
    ci95 = None
  return {"value": point, "ci95": ci95, "n": fields.get("n")}


def fve_rows(metrics: Mapping[str, Any], definitions: Mapping[str, str]) -> list[dict[str, Any]]:
  """The FVE rows that were measured, in report order, each an estimate with "key", "label", "kind", "definition".

  Rows under metrics["fve"] and metrics["controls"] that have no name here follow their kind under their own key.
  """
  rows = []
  known = {*RESULTS, *REFERENCES, GAIN}
  for section, names, kind in _KINDS:
    measured = metrics.get(section) or {}
    extra = [key for key in measured if key not in (CONTROLS if kind == "control" else known)]
    for key in [*names, *(extra if kind != "result" else ())]:
      if (found := estimate(measured.get(key))) is not None:
        label, definition = names.get(key, (key.replace("_", " ").capitalize(), ""))
        rows.append(
          {
            "key": key,
            "label": label,
            "kind": kind,
            "definition": definitions.get(key, definition),
            **found,
          }
        )
  return rows


def not_run(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Labels of the standard controls that are missing."""
  have = {row["key"] for row in rows}
  return [label for key, (label, _) in CONTROLS.items() if key not in have]


def _bounds(row: Mapping[str, Any]) -> tuple[float, float]:
  """The interval; without one anything is possible, so that nothing is claimed."""
  return row["ci95"] or (-math.inf, math.inf)


def headline(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The sampled round trip in words: "value", "interval", "n" and "sentence" as text, and "findings".

  A finding is {"tone": good | warn | bad | plain, "text"}.
  """
  trip = next((row for row in rows if row["key"] == "round_trip"), None)
  if trip is None:
    sentence = (
      "The round trip was not measured, so nothing is known about how much the explanations carry."
    )
    return {
      "value": "—",
      "interval": "not measured",
      "n": None,
      "sentence": sentence,
      "findings": _doubts(metrics, rows),
    }
  share = f"{100 * trip['value']:.0f} %"
  if trip["value"] <= 0:
    sentence = (
      "Below zero: from the explanations the reconstructor does worse than always answering the mean "
      "activation. Nothing in this run's explanations should be taken as evidence about the model."
    )
  elif _bounds(trip)[0] <= 0:
    reason = "the interval reaches zero" if trip["ci95"] else "there is no interval"
    sentence = (
      f"From the explanation alone, the reconstructor recovers {share} of the variance in the activations' "
      f"direction, but {reason}: it is not shown that the explanations carry anything "
      "beyond the mean activation."
    )
  else:
    sentence = (
      f"From the explanation alone, the reconstructor recovers {share} of the variance in the activations' "
      "direction. 0 is what always answering the mean activation scores, 1 is a perfect rebuild."
    )
  interval = (
    f"95 % interval {number(trip['ci95'][0])} to {number(trip['ci95'][1])}"
    if trip["ci95"]
    else "no interval"
  )
  n = None if trip["n"] is None else f"{trip['n']:,} activations"
  if n and (groups := estimate(metrics.get("groups"))):
    n += f", {groups['value']:,.0f} document groups"
  found = _against_controls(trip, metrics, rows) + _doubts(metrics, rows)
  return {
    "value": number(trip["value"]),
    "interval": interval,
    "n": n,
    "sentence": sentence,
    "findings": found,
  }


def _finding(tone: str, text: str) -> dict[str, str]:
  return {"tone": tone, "text": text}


def _against_controls(
  trip: Mapping[str, Any],
  metrics: Mapping[str, Any],
  rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:
  """What the round trip is worth beside each control and reference that was measured."""
  found = []
  by_key = {row["key"]: row for row in rows}
  controls = [row for row in rows if row["kind"] == "control"]
  low, _ = _bounds(trip)
  if controls:
    best = max(controls, key=lambda row: row["value"])
    name, score = best["label"].lower(), number(best["value"])
    paired = metrics.get("above_control") or {}
    gaps = [estimate(paired.get(row["key"])) or {"ci95": None} for row in controls]
    if low > max(_bounds(row)[1] for row in controls):
      text = (
        f"Every control that was run scores clearly lower. The strongest, {name}, reaches {score}."
      )
      found.append(_finding("good", text))
    elif all(_bounds(gap)[0] > 0 for gap in gaps):
      gap = gaps[controls.index(best)]
      ends = " to ".join(number(end) for end in gap["ci95"])
      text = (
        "Every control that was run scores lower on the same activations. "
        f"The strongest, {name}, reaches {score}: the round trip is {number(gap['value'])} above it ({ends})."
      )
      found.append(_finding("good", text))
    elif trip["value"] > best["value"]:
      text = f"Not shown to be above every control: the intervals overlap or are missing ({name} reaches {score})."
      found.append(_finding("warn", text))
    else:
      found.append(
        _finding("bad", f"The control {name} scores {score}, no less than the round trip.")
      )
  if "shuffled_vector" in by_key:
    shuffled = by_key["shuffled_vector"]
    score = f"explanations of another activation score {number(shuffled['value'])}."
    if low > _bounds(shuffled)[1]:
      found.append(_finding("good", f"The words depend on the vector: {score}"))
    else:
      found.append(_finding("bad", f"It is not shown that the words depend on the vector: {score}"))
  if "round_trip_sft" in by_key:
    before = by_key["round_trip_sft"]
    gain = estimate((metrics.get("fve") or {}).get(GAIN))
    if _bounds(gain)[0] > 0 if gain else low > _bounds(before)[1]:
      text = f"Reinforcement learning raised FVE from {number(before['value'])} to {number(trip['value'])}."
      found.append(_finding("good", text))
    else:
      text = f"Not clearly better than before reinforcement learning ({number(before['value'])})."
      found.append(_finding("warn", text))
  if "teacher_text" in by_key:
    text = f"For scale, the teacher's text gives {number(by_key['gold_text']['value'])}."
    found.append(_finding("plain", text))
  return found


def _doubts(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
  """Reasons to doubt the numbers, whatever they are."""
  found = []
  if missing := not_run(rows):
    found.append(
      _finding(
        "warn", "Controls that were not run: " + ", ".join(name.lower() for name in missing) + "."
      )
    )
  trip = next((row for row in rows if row["key"] == "round_trip"), None)
  if trip and trip["ci95"] is None:
    found.append(
      _finding(
        "warn", "The round trip has no interval: one document is not enough to know the spread."
      )
    )
  if trip and trip["n"] is not None and trip["n"] < 100:
    found.append(_finding("warn", f"Only {trip['n']} activations were evaluated."))
  rate = estimate(metrics.get("parse_rate"))
  if rate and rate["value"] < 0.95:
    found.append(
      _finding("warn", f"{100 * (1 - rate['value']):.0f} % of the explanations did not parse.")
    )
  av = metrics.get("av") or {}
  own, shuffled = estimate(av.get("loss_own")), estimate(av.get("loss_shuffled"))
  if own and shuffled and shuffled["value"] - own["value"] < 0.02:
    found.append(
      _finding(
        "bad",
        "The verbalizer's loss hardly differs between its own vector and a shuffled one: it writes without looking.",
      )
    )
  b = estimate(metrics.get("baseline_variance"))
  if b and b["value"] < 0.1:
    found.append(
      _finding(
        "plain",
        f"The activations share most of their direction (baseline variance "
        f"{number(b['value'], 3)}), so cosines say nothing here.",
      )
    )
  return found
