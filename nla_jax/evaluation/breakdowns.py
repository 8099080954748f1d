"""Estimates of what suites found: on all rows, for each source and role, at each range of positions, and for each n.

A source or a role is measured as if it were evaluated alone, against the variance of its own activations: the mean of
conversations is no part of what was explained of a conversation. Ranges of positions are parts of one measurement and
share its baseline, so that a curve shows the error alone.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nla_jax import quantities
from nla_jax.autoencoder import fve
from nla_jax.data.roles import LAST_OF_TURN, NAMES, last_of_turn
from nla_jax.evaluation import intervals
from nla_jax.evaluation.subject import Subject

DIFFERENCES = {
  "gain_of_rl": ("round_trip", "round_trip_sft"),
  # Before RL the fixed AR is the pair's own.
  "gain_of_rl_fixed": ("fixed_critic", "round_trip_sft"),
}
RETENTIONS = {
  "retention_shuffle": ("shuffled_words", "round_trip"),
  "retention_shuffle_fixed": ("shuffled_words_fixed", "fixed_critic"),
  "retention_synonyms": ("synonyms", "round_trip"),
  "retention_synonyms_fixed": ("synonyms_fixed", "fixed_critic"),
}
_EDGES = (0, 8, 16, 32, 64)  # of the ranges of positions; the last has no end
_CURVE = (quantities.HEADLINE, "fixed_critic")  # what is shown by position

Errors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rows:
  """Rows that are measured together.

  Attributes:
    groups: [n] the document group of each; intervals resample groups.
    baseline: error of the best constant answer.
    samples: bootstrap draws.
    seed: of the bootstrap; the same for every estimate, so that the same groups are drawn and rows of a table stay
      comparable.
  """

  groups: np.ndarray
  baseline: float
  samples: int
  seed: int

  def only(self, chosen: np.ndarray) -> "Rows":
    """Some of the rows, against the same baseline."""
    return dataclasses.replace(self, groups=self.groups[chosen])

  def estimates(self, errors: Errors) -> dict[str, Any]:
    """FVEs, controls, and all comparisons between them, laid out as in metrics.json."""
    metrics = self.fves(errors)
    controls = metrics.get(quantities.SECTIONS["control"], {})
    round_trip = errors.get(quantities.HEADLINE)
    metrics[quantities.ABOVE_CONTROL] = {
      key: self._compared(intervals.paired_bootstrap, round_trip, errors[key]) for key in controls
    }

    # Only what was measured on both sides; a share of nothing is no number.
    for pairs, compare in (
      (DIFFERENCES, intervals.paired_bootstrap),
      (RETENTIONS, intervals.paired_retention),
    ):
      for key, (a, b) in pairs.items():
        if a in errors and b in errors:
          found = self._compared(compare, errors[a], errors[b])
          if found is not None:
            quantities.put(metrics, key, found)
    return metrics

  def fves(self, errors: Errors) -> dict[str, Any]:
    """The FVE of each error, where the table says."""
    metrics = {}
    for key, error in errors.items():
      estimate = intervals.bootstrap(
        error, self.groups, self.baseline, samples=self.samples, seed=self.seed
      )
      quantities.put(metrics, key, estimate.to_dict())
    return metrics

  def counts(self) -> dict[str, int]:
    """How much stands behind the numbers."""
    return {"rows": len(self.groups), "groups": len(set(self.groups.tolist()))}

  def _compared(self, compare: Callable, a: np.ndarray, b: np.ndarray) -> dict[str, Any] | None:
    found = compare(a, b, self.groups, self.baseline, samples=self.samples, seed=self.seed)
    return None if found is None else found.to_dict()


def by_source(subject: Subject, rows: Rows, errors: Errors) -> dict[str, dict[str, Any]]:
  """Every estimate for each source of a store of several; empty for a store of one."""
  names = np.unique(subject.sources)
  if len(names) < 2:
    return {}

  chosen = {name: subject.sources == name for name in names.tolist()}
  return _alone(subject, rows, errors, chosen)


def by_role(subject: Subject, rows: Rows, errors: Errors) -> dict[str, dict[str, Any]]:
  """Every estimate for tokens of each role, and for the last of a turn; empty for a store without conversations."""
  roles = _at_positions(subject, lambda roles: roles)
  ends_turn = _at_positions(subject, lambda roles: last_of_turn(roles, whole=False)).astype(bool)
  chosen = {name: roles == i for i, name in enumerate(NAMES) if i}
  found = _alone(subject, rows, errors, chosen)
  return found and found | _alone(subject, rows, errors, {LAST_OF_TURN: ends_turn})


def _at_positions(subject: Subject, of_tokens: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  """[n] what is known of each row's token from the roles of its document's; 0 of what is no conversation."""
  rows = zip(subject.documents, subject.positions.tolist(), strict=True)
  return np.array([0 if one.roles is None else of_tokens(one.roles)[at] for one, at in rows])


def _alone(
  subject: Subject, rows: Rows, errors: Errors, parts: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
  """Every estimate of some rows as if they were evaluated alone; parts are {name: [n] bool}."""
  found = {}
  for name, chosen in parts.items():
    # One row has no variance to explain.
    if chosen.sum() > 1:
      baseline = fve.baseline_variance(subject.activations[chosen])
      mine = dataclasses.replace(rows.only(chosen), baseline=baseline)
      part = {key: error[chosen] for key, error in errors.items()}
      found[name] = {
        **mine.estimates(part),
        **mine.counts(),
        "baseline_variance": baseline,
        quantities.BY_POSITION: by_position(subject.words_before[chosen], mine, part),
      }
  return found


def by_position(words_before: np.ndarray, rows: Rows, errors: Errors) -> dict[str, dict[str, Any]]:
  """The round trip at ranges of positions: 8-16 has 8 and not 16; ranges without a row are left out."""
  curve = {key: errors[key] for key in _CURVE if key in errors}
  found = {}
  for low, high in zip(_EDGES, (*_EDGES[1:], np.inf)):
    chosen = (words_before >= low) & (words_before < high)
    if chosen.any():
      name = f"{low}+" if high == np.inf else f"{low}-{high}"
      part = rows.only(chosen)
      only = {key: error[chosen] for key, error in curve.items()}
      found[name] = {**part.fves(only), **part.counts()}
  return found


def by_n(rows: Rows, found: dict[int, Errors]) -> dict[str, dict[str, Any]]:
  """The FVE for each number of explanations; errors are of the first rows."""
  measured = {}
  for n, errors in found.items():
    first = rows.only(np.arange(len(next(iter(errors.values())))))
    measured[str(n)] = {**first.fves(errors), **first.counts()}
  return measured
