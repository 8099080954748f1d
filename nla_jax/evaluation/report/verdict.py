"""What the numbers of an evaluation say, in sentences: the report's headline, and the reasons to doubt it.

Rules, not judgement: each finding follows from a comparison of intervals that is stated with it. Intervals of two
methods are compared as if independent, which errs on the side of "not shown"; only where paired differences were
measured do these decide.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nla_jax import quantities
from nla_jax.evaluation.intervals import FEW_GROUPS
from nla_jax.evaluation.report.charts import number
from nla_jax.quantities import Found

_FEW_ROWS = 100
_PARSE_RATE = 0.95  # below it, what is scored as empty moves the headline
_LOSS_GAP = 0.02  # nats a token; an AV that reads its vector gains several tenths
_SMALL_BASELINE = 0.1  # a constant answer then has cosine above 0.95


def fve_rows(metrics: Mapping[str, Any], definitions: Mapping[str, str]) -> list[Found]:
  """The FVEs that were measured, in the order of the table.

  Those that the table does not have follow their kind under their own key. `definitions` replaces sentences by key.
  """
  # No unknown results: what this version does not know must not stand under "this NLA".
  rows = quantities.measured(metrics, "result")
  for kind in ("reference", "control"):
    rows += quantities.measured(metrics, kind) + quantities.unknown(metrics, kind)
  return [_defined(row, definitions) for row in rows]


def _defined(row: Found, definitions: Mapping[str, str]) -> Found:
  # A run that was measured in another way says so itself.
  sentence = definitions.get(row.quantity.key, row.quantity.sentence)
  return dataclasses.replace(row, quantity=dataclasses.replace(row.quantity, sentence=sentence))


def not_run(rows: Sequence[Found]) -> list[quantities.Quantity]:
  """Controls of the table that were not measured."""
  have = {row.quantity.key for row in rows}
  return [one for one in quantities.TABLE if one.kind == "control" and one.key not in have]


def headline(metrics: Mapping[str, Any], rows: Sequence[Found]) -> dict[str, Any]:
  """The sampled round trip in words: "value", "interval", "n" and "sentence" as text, and "findings".

  A finding is {"tone": good | warn | bad | plain, "text"}.
  """
  doubts = _doubts(metrics, rows)
  trip = _row(rows, quantities.HEADLINE)
  if trip is None:
    return {
      "value": "—",
      "interval": "not measured",
      "n": None,
      "sentence": "The round trip was not measured, so nothing is known about how much the explanations carry.",
      "findings": doubts,
    }

  interval = "no interval"
  if trip.ci95:
    interval = f"95 % interval {number(trip.ci95[0])} to {number(trip.ci95[1])}"
  n = None if trip.n is None else f"{trip.n:,} activations"
  if n and (groups := quantities.find(metrics, "groups")):
    n += f", {groups.value:,.0f} document groups"
  return {
    "value": number(trip.value),
    "interval": interval,
    "n": n,
    "sentence": _sentence(trip),
    "findings": _comparisons(trip, metrics, rows) + doubts,
  }


def _sentence(trip: Found) -> str:
  """What the round trip shows; no more than its interval allows."""
  if trip.value <= 0:
    return (
      "Below zero: from the explanations the reconstructor does worse than always answering the mean "
      "activation. Nothing in this run's explanations should be taken as evidence about the model."
    )

  share = f"{100 * trip.value:.0f} %"
  if trip.bounds[0] <= 0:
    reason = "the interval reaches zero" if trip.ci95 else "there is no interval"
    return (
      f"From the explanation alone, the reconstructor recovers {share} of the variance in the activations' "
      f"direction, but {reason}: it is not shown that the explanations carry anything "
      "beyond the mean activation."
    )
  return (
    f"From the explanation alone, the reconstructor recovers {share} of the variance in the activations' "
    "direction. 0 is what always answering the mean activation scores, 1 is a perfect rebuild."
  )


def _row(rows: Sequence[Found], key: str) -> Found | None:
  return next((row for row in rows if row.quantity.key == key), None)


def _finding(tone: str, text: str) -> dict[str, str]:
  return {"tone": tone, "text": text}


def _comparisons(
  trip: Found, metrics: Mapping[str, Any], rows: Sequence[Found]
) -> list[dict[str, str]]:
  """What the round trip is worth beside each control and reference that was measured."""
  # First what would undo the headline, last what only gives it scale.
  found = []
  controls = [row for row in rows if row.quantity.kind == "control"]
  if controls:
    found.append(_against_controls(trip, controls, quantities.above_controls(metrics)))

  shuffled = _row(rows, "shuffled_vector")
  if shuffled:
    score = f"explanations of another activation score {number(shuffled.value)}."
    if trip.bounds[0] > shuffled.bounds[1]:
      found.append(_finding("good", f"The words depend on the vector: {score}"))
    else:
      found.append(_finding("bad", f"It is not shown that the words depend on the vector: {score}"))

  before = _row(rows, "round_trip_sft")
  if before:
    found.append(_against_before_rl(trip, before, quantities.find(metrics, "gain_of_rl")))
  fixed, gain = _row(rows, "fixed_critic"), quantities.find(metrics, "gain_of_rl_fixed")
  if fixed and gain:
    found.append(_under_fixed_ar(fixed, gain))

  teacher = _row(rows, "teacher_text")
  if teacher:
    found.append(_finding("plain", f"For scale, the teacher's text gives {number(teacher.value)}."))
  return found


def _against_controls(
  trip: Found, controls: Sequence[Found], above: Sequence[Found]
) -> dict[str, str]:
  """Whether the round trip is above every control: by separate intervals, or by paired ones where there are all."""
  best = max(controls, key=lambda row: row.value)
  name, score = best.quantity.name, number(best.value)
  if trip.bounds[0] > max(row.bounds[1] for row in controls):
    return _finding(
      "good",
      f"Every control that was run scores clearly lower. The strongest, {name}, reaches {score}.",
    )

  # Each control counts, not the strongest alone: a weaker one with a wide interval may be the better.
  gaps = {row.quantity.key: row for row in above}
  lows = [gaps[key].bounds[0] if key in gaps else -math.inf for key in _keys(controls)]
  if min(lows) > 0:
    gap = gaps[best.quantity.key]
    ends = " to ".join(number(end) for end in gap.ci95)
    return _finding(
      "good",
      "Every control that was run scores lower on the same activations. The strongest, "
      f"{name}, reaches {score}: the round trip is {number(gap.value)} above it ({ends}).",
    )
  if trip.value > best.value:
    return _finding(
      "warn",
      f"Not shown to be above every control: the intervals overlap or are missing ({name} reaches {score}).",
    )
  return _finding("bad", f"The control {name} scores {score}, no less than the round trip.")


def _keys(rows: Sequence[Found]) -> list[str]:
  return [row.quantity.key for row in rows]


def _against_before_rl(trip: Found, before: Found, gain: Found | None) -> dict[str, str]:
  # The paired interval is much the tighter; the separate ones serve files that lack it.
  shown = gain.bounds[0] > 0 if gain else trip.bounds[0] > before.bounds[1]
  if shown:
    return _finding(
      "good",
      f"Reinforcement learning raised FVE from {number(before.value)} to {number(trip.value)}.",
    )
  return _finding(
    "warn", f"Not clearly better than before reinforcement learning ({number(before.value)})."
  )


def _under_fixed_ar(fixed: Found, gain: Found) -> dict[str, str]:
  """Whether RL taught the AV words that an AR can read which did not learn them."""
  score = f"score {number(fixed.value)}, against those before RL {number(gain.value)} more"
  if gain.bounds[0] > 0:
    text = f"The AV's words gained by themselves: read by the AR before RL they {score}."
    return _finding("good", text)
  text = (
    f"Not shown that the AV's words gained by themselves: read by the AR before RL they {score}."
  )
  return _finding("warn", text)


def _doubts(metrics: Mapping[str, Any], rows: Sequence[Found]) -> list[dict[str, str]]:
  """Reasons to doubt the numbers, whatever they are."""
  found = []
  if missing := not_run(rows):
    names = ", ".join(one.name for one in missing)
    found.append(_finding("warn", f"Controls that were not run: {names}."))

  # What makes any number here weak, whatever it is.
  trip = _row(rows, quantities.HEADLINE)
  if trip and trip.ci95 is None:
    text = "The round trip has no interval: one document is not enough to know the spread."
    found.append(_finding("warn", text))
  groups = quantities.find(metrics, "groups")
  if trip and trip.ci95 and groups and groups.value < FEW_GROUPS:
    text = (
      f"Only {groups.value:.0f} groups of documents were evaluated: intervals are Student's t over so few, wide, and "
      "do not hold where one of them is unlike the others."
    )
    found.append(_finding("warn", text))
  if trip and trip.n is not None and trip.n < _FEW_ROWS:
    found.append(_finding("warn", f"Only {trip.n} activations were evaluated."))

  # Unparsed answers pull the headline towards the empty explanation, in either direction.
  rate = quantities.find(metrics, "parse_rate")
  if rate and rate.value < _PARSE_RATE:
    text = f"{100 * (1 - rate.value):.0f} % of the explanations did not parse."
    found.append(_finding("warn", text))

  # An AV can write like its teacher from the language alone; then both losses are equal.
  gap = quantities.loss_gap(metrics)
  if gap and gap.value < _LOSS_GAP:
    text = (
      "The verbalizer's loss hardly differs between its own vector and a shuffled one: "
      "it writes without looking."
    )
    found.append(_finding("bad", text))

  baseline = quantities.find(metrics, "baseline_variance")
  if baseline and baseline.value < _SMALL_BASELINE:
    text = (
      f"The activations share most of their direction (baseline variance {number(baseline.value, 3)}), "
      "so cosines say nothing here."
    )
    found.append(_finding("plain", text))
  return found
