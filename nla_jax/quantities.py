"""What an evaluation measures: the one table of keys, names and meanings.

The keys are those of `metrics.json` and of the columns of `rows.json`. The terminal, the report, the model card and the
harness read labels, sentences and order from here; a new quantity is a line of `TABLE`, and the module that measures it.
The module lies below `interop`, whose model cards read it, and therefore not in `evaluation`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

# Where the quantities of a kind stand in metrics.json; "" is its top level.
SECTIONS = {
  "result": "fve",  # FVE of this NLA
  "reference": "fve",  # FVE of something else, for scale
  "control": "controls",  # FVE that needs no explanation of the activation
  "difference": "fve",  # of two FVEs on the same rows
  "retention": "retention",  # one FVE as a share of another on the same rows
  "loss": "av",
  "number": "",
  "count": "",
}
ABOVE_CONTROL = (
  "above_control"  # section: the round trip's FVE less each control's, on the same rows
)
COSINE = "cosine"  # section: the mean cosine behind each FVE
HEADLINE = "round_trip"  # the key that controls are compared with

# Sections of metrics.json that hold, by name, what was measured on some of the rows or with n explanations. What stands
# under a name is laid out like metrics.json itself, and every function here reads it.
BY_SOURCE, BY_ROLE = "by_source", "by_role"
BY_POSITION, BY_N = "by_position", "by_n"
# What suites that answer a question found, by suite, and why others were left out; see `evaluation.findings`.
SUITES, LEFT_OUT = "suites", "suites_left_out"
# By suite, the rungs of evidence as {"rung", "state", "detail"}, from the bottom up; see `evaluation.ladder`.
LADDER = "ladder"
_NOT_NUMBERS = (
  *SECTIONS.values(),
  *(ABOVE_CONTROL, COSINE, BY_SOURCE, BY_ROLE, BY_POSITION, BY_N, SUITES, LEFT_OUT, LADDER),
)


@dataclasses.dataclass(frozen=True)
class Quantity:
  """One measured quantity.

  Attributes:
    key: its name in metrics.json.
    kind: a key of `SECTIONS`.
    suite: the module under `nla_jax/evaluation/suites/` that measures it, with dots for folders; empty where it is
      computed from others, or is not measured yet.
    label: what a person reads beside the number.
    sentence: what it is.
    text: heading of the text that it scores, among the report's examples; empty where that text is not shown.
    note: a few words, where the number stands large beside the headline; empty where it does not.
    unit: "share", "tokens" or "nats a token"; empty for FVE, cosines and counts.
  """

  key: str
  kind: str
  suite: str
  label: str
  sentence: str
  text: str = ""
  note: str = ""
  unit: str = ""

  @property
  def name(self) -> str:
    """The label as it is written inside a sentence."""
    starts_a_word = self.label[1:2].islower()  # an abbreviation keeps its capitals
    return self.label[:1].lower() + self.label[1:] if starts_a_word else self.label


# The order is that of every list of numbers. A quantity is one line, however long, so that a new one is a new line.
# ruff: noqa: E501
# fmt: off
TABLE = (
  Quantity("round_trip", "result", "reconstruction", "Round trip, sampled", "Activation to AV to AR, the explanation sampled from the AV's own distribution, at config.rl.temperature (1 by default). The headline.", text="Explanation"),
  Quantity("greedy", "result", "reconstruction", "Round trip, greedy", "The same with the likeliest token at every step.", text="Greedy"),
  Quantity("round_trip_sft", "result", "reconstruction", "Round trip before RL", "The same, sampled, with the supervised checkpoints that reinforcement learning started from.", text="Before RL"),
  Quantity("fixed_critic", "result", "fixed_critic", "Round trip, AR before RL", "The trained AV's explanations, read by the frozen AR that reinforcement learning started from: what the AV gained without a private code between the two."),
  Quantity("best_of", "result", "best_of", "Round trip, best of n", "Of n sampled explanations the one that the AR rebuilds best, scored by that AR: it chose by this very error."),
  Quantity("best_of_fixed", "result", "best_of", "Best of n, AR before RL", "The same explanations, scored by the frozen AR that reinforcement learning started from, which did not choose."),
  Quantity("teacher_text", "reference", "reconstruction", "Teacher's text", "The AR on text that the teacher wrote from the document. The AV plays no part: this is the AR's own skill.", text="Teacher’s text"),
  Quantity("shuffled_words", "reference", "retention", "Words shuffled", "The sampled explanations with the words of each line in another order; labels and punctuation stay in place."),
  Quantity("shuffled_words_fixed", "reference", "retention", "Words shuffled, AR before RL", "The same shuffled words, read by the frozen AR that reinforcement learning started from."),
  Quantity("synonyms", "reference", "retention", "Synonyms", "The sampled explanations with every word of four letters or more replaced that has a synonym in WordNet, labels excepted; what a word means in its sentence is not considered."),
  Quantity("synonyms_fixed", "reference", "retention", "Synonyms, AR before RL", "The same synonyms, read by the frozen AR that reinforcement learning started from."),
  Quantity("shuffled_vector", "control", "controls.shuffled_vector", "Shuffled vector", "The AV explains an activation of another document, and the text is scored against this one."),
  Quantity("zero_vector", "control", "controls.zero_vector", "Zero vector", "A vector of zeros is injected: what the AV says when it is given nothing."),
  Quantity("mean_vector", "control", "controls.mean_vector", "Mean vector", "The mean activation is injected: what the AV says of no activation in particular."),
  Quantity("empty_text", "control", "controls.empty_text", "Empty explanation", "The AR reads an empty explanation: what it assumes without being told."),
  Quantity("retrieval", "control", "baselines.retrieval", "Nearest-neighbour retrieval", "The AR reads the teacher's text of the training activation nearest to this one: looking up, without an AV."),
  Quantity("mean_per_last_token", "control", "baselines.last_token", "Mean per last token", "No text is read: the answer is the mean direction of training activations on the same token."),
  Quantity("last_words", "control", "baselines.last_words", "Last words at equal length", "The AR reads the last words of the context, as many tokens as the AV's explanation of it: quoting, without an AV."),
  Quantity("gain_of_rl", "difference", "", "Gain of RL", "FVE of the round trip less that before RL, on the same rows (paired)."),
  Quantity("gain_of_rl_fixed", "difference", "", "Gain of RL, AR before RL", "FVE of the explanations after RL less that of those before RL, both read by the frozen AR that reinforcement learning started from (paired). What the gain above has beyond this one, the AR learned."),
  Quantity("retention_shuffle", "retention", "", "Kept under word shuffle", "FVE with the words shuffled, as a share of the round trip's (paired). A code in the order of words would be lost.", unit="share"),
  Quantity("retention_shuffle_fixed", "retention", "", "Kept under word shuffle, AR before RL", "The same share with the frozen AR as the reader of both.", unit="share"),
  Quantity("retention_synonyms", "retention", "", "Kept under synonyms", "FVE with synonyms, as a share of the round trip's (paired). A code in the choice among words of one meaning would be lost.", unit="share"),
  Quantity("retention_synonyms_fixed", "retention", "", "Kept under synonyms, AR before RL", "The same share, with the frozen AR as the reader of both.", unit="share"),
  Quantity("loss_own", "loss", "reconstruction", "AV loss, own vector", "Nats a token on the teacher's held-out text, given the right activation.", unit="nats a token"),
  Quantity("loss_shuffled", "loss", "reconstruction", "AV loss, shuffled vector", "The same given another activation. Equal: the vector is ignored.", unit="nats a token"),
  Quantity("loss_gap", "loss", "", "AV loss gap", "Nats a token by which the AV's loss is lower with the right activation than with another.", note="nats a token lower with its own vector", unit="nats a token"),
  Quantity("parse_rate", "number", "reconstruction", "Parse rate", "Share of sampled explanations that closed their tags within the length cap. The others are scored as empty.", note="explanations that are well formed", unit="share"),
  Quantity("distinct", "number", "reconstruction", "Distinct explanations", "Different texts per activation. Near 0: the AV says the same of everything.", unit="share"),
  Quantity("synonyms_share", "number", "retention", "Words with a synonym", "Share of the explanations' words, labels excepted, that were replaced where synonyms are read.", unit="share"),
  Quantity("tokens_mean", "number", "reconstruction", "Length", "Mean tokens of an explanation. Longer explanations buy FVE.", note="tokens an explanation, mean", unit="tokens"),
  Quantity("magnitude_r2", "number", "magnitude", "Magnitude, R²", "Share of the variance of log ‖h‖ that is read from the sampled explanations, by a head that was fitted to explanations of training activations. 0: as good as always answering the mean."),
  Quantity("baseline_variance", "number", "", "Baseline variance", "The error of always answering the mean direction: what FVE is measured against.", note="error of answering the mean, 0 to 1"),
  Quantity("fve_inflated", "number", "reconstruction", "FVE, inflated definition", "The same reconstructions against a mean scaled back to unit norm. That baseline is worse than the best constant, so this number is larger without a better reconstruction. Shown only to compare with work that reports it."),
  Quantity("rows", "count", "", "Activations", "Held-out activations that were evaluated."),
  Quantity("groups", "count", "", "Document groups", "Groups of documents that these activations come from; intervals resample them."),
)
# fmt: on
QUANTITIES = {one.key: one for one in TABLE}


@dataclasses.dataclass(frozen=True)
class Found:
  """A quantity with the number that metrics.json has for it.

  Attributes:
    quantity: what was measured.
    value: a finite number.
    ci95: (low, high) of its 95 % interval; None where there is none.
    n: activations behind it; None where that is not said.
  """

  quantity: Quantity
  value: float
  ci95: tuple[float, float] | None
  n: int | None

  @property
  def bounds(self) -> tuple[float, float]:
    """The interval; without one anything is possible, so that nothing is claimed."""
    return self.ci95 or (-math.inf, math.inf)


def found(quantity: Quantity, measured: Any) -> Found | None:
  """Reads {"value", "ci95", "n"} or a bare number; None where that is not a finite number."""
  # Files come from other versions and other programs: whatever is no number is as good as missing.
  fields = measured if isinstance(measured, Mapping) else {"value": measured}
  value, ci95 = fields.get("value"), fields.get("ci95")
  try:
    value = float(value)
    ci95 = tuple(float(end) for end in ci95) if ci95 is not None else None
  except (TypeError, ValueError):
    return None
  if not math.isfinite(value):
    return None

  # A broken interval is no reason to hide the number.
  if ci95 is not None and not (len(ci95) == 2 and all(map(math.isfinite, ci95))):
    ci95 = None
  return Found(quantity, value, ci95, fields.get("n"))


def find(metrics: Mapping[str, Any], key: str) -> Found | None:
  """The number of a quantity of the table; None where it was not measured."""
  quantity = QUANTITIES[key]
  return found(quantity, _section(metrics, SECTIONS[quantity.kind]).get(key))


def measured(metrics: Mapping[str, Any], *kinds: str) -> list[Found]:
  """What was measured of these kinds, in the table's order."""
  every = (find(metrics, one.key) for one in TABLE if one.kind in kinds)
  return [one for one in every if one is not None]


def unknown(metrics: Mapping[str, Any], kind: str) -> list[Found]:
  """What stands in the section of this kind and not in the table, under its own key."""
  every = []
  for key, value in _section(metrics, SECTIONS[kind]).items():
    if key in QUANTITIES or key in _NOT_NUMBERS:
      continue

    # A section that is not known here is laid flat: its numbers are labelled by both keys.
    one = named(key, kind)
    if isinstance(value, Mapping) and "value" not in value:
      for part, number in value.items():
        label = f"{one.label}, {part.replace('_', ' ')}"
        every.append(found(dataclasses.replace(one, key=f"{key}.{part}", label=label), number))
    else:
      every.append(found(one, value))
  return [one for one in every if one is not None]


def parts(metrics: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
  """What `BY_SOURCE`, `BY_ROLE`, `BY_POSITION` or `BY_N` holds, by name; empty where nothing was measured so."""
  found = _section(metrics, section)
  return {str(name): part for name, part in found.items() if isinstance(part, Mapping)}


def alone(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """What was measured of each source and of each role as if nothing else had been there, by name."""
  return parts(metrics, BY_SOURCE) | parts(metrics, BY_ROLE)


def above_controls(metrics: Mapping[str, Any]) -> list[Found]:
  """The round trip's FVE less each control's on the same rows: the table's controls first, then others."""
  # Keyed like the controls, so these have no entries of their own in the table.
  section = _section(metrics, ABOVE_CONTROL)
  known = [one.key for one in TABLE if one.key in section]
  keys = [*known, *(key for key in section if key not in known)]
  every = (found(named(key, "control"), section[key]) for key in keys)
  return [one for one in every if one is not None]


def loss_gap(metrics: Mapping[str, Any]) -> Found | None:
  """By how much the AV's loss is lower with its own vector; not in metrics.json, but computed from it."""
  own, shuffled = find(metrics, "loss_own"), find(metrics, "loss_shuffled")
  if own is None or shuffled is None:
    return None
  return Found(QUANTITIES["loss_gap"], shuffled.value - own.value, None, None)


def named(key: str, kind: str) -> Quantity:
  """The table's quantity; one that is labelled by its key where the table has none."""
  return QUANTITIES.get(key) or Quantity(key, kind, "", key.replace("_", " ").capitalize(), "")


def put(metrics: dict[str, Any], key: str, value: Any) -> None:
  """Writes a measured number where the table says. Raises KeyError where the table has no such key."""
  section = SECTIONS[QUANTITIES[key].kind]
  (metrics.setdefault(section, {}) if section else metrics)[key] = value


def suites() -> tuple[str, ...]:
  """The suites that measure the table's quantities, in the order in which the table first names them."""
  return tuple(dict.fromkeys(one.suite for one in TABLE if one.suite))


def _section(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  section = metrics.get(name) if name else metrics
  return section if isinstance(section, Mapping) else {}
