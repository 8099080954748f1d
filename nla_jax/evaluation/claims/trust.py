"""Which claims can be trusted: what deletion and recurrence tell, and a confidence made of all the evidence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.evaluation import calibration, ranking
from nla_jax.evaluation.claims import confidence
from nla_jax.evaluation.claims.evidence import FEATURES, Evidence, Options
from nla_jax.evaluation.claims.precision import Verdicts
from nla_jax.evaluation.findings import Gate, Score
from nla_jax.evaluation.intervals import bootstrap_mean

CONFIDENCE = "confidence"
_ADDED = "AUC that confidence adds"
_LIAR = 0.05  # confidence beyond luck that a planted liar may have
FEWEST = 40  # claims of the rarer kind, true or false, below which a confidence is not fitted
_NAMES = {
  "recurrence": "recurrence",
  "frequency": "frequency over samples",
  "deletion": "FVE lost without the claim",
  "excess": "FVE lost beyond random words",
  "fve": "FVE of the explanation",
  "logprob": "log-probability",
}


class Trust(NamedTuple):
  """What was found.

  Attributes:
    scores: cells of the suite's table.
    gates: what the confidence had to pass.
    curve: (mean confidence, share that is true) of bins.
    model: fitted on all claims; None of too few.
    probabilities: [claims] by models that saw no claim of the document group; None of too few claims.
    verdict: one sentence.
  """

  scores: list[Score]
  gates: list[Gate]
  curve: list[tuple[float, float]]
  model: confidence.Model | None
  probabilities: np.ndarray | None
  verdict: str


class _Table(NamedTuple):
  """All claims with their evidence.

  Attributes:
    found: the claims.
    values: [claims, features].
    spread: [claims].
    groups: [claims].
  """

  found: Verdicts
  values: np.ndarray
  spread: np.ndarray
  groups: np.ndarray


def trust(
  found: Verdicts, evidence: Sequence[Evidence], groups: np.ndarray, options: Options, **bootstrap
) -> Trust:
  """Asks the evidence about claims whose truth is known.

  Args:
    found: the claims with verdicts.
    evidence: of each explanation.
    groups: [rows] the document group of each explanation.
    options: how the evidence was gathered.
    bootstrap: `samples` and `seed` of the intervals.
  """
  table = _joined(found, evidence, groups)
  scores = _by_truth(table, **bootstrap)
  rarer = min(int(found.true.sum()), int((~found.true).sum()))
  if rarer < FEWEST or len(np.unique(table.groups)) < 2:
    said = f"Only {rarer} claims are of the rarer kind, true or false: no confidence was fitted."
    return Trust(scores, [], [], None, None, said)
  return _calibrated(table, scores, options, bootstrap["seed"])


def planted_liar(
  model: confidence.Model,
  liar: Verdicts,
  evidence: Sequence[Evidence],
  groups: np.ndarray,
  **bootstrap,
) -> tuple[list[Score], Gate]:
  """What a confidence says of another row's claims, planted at each row with the evidence of that row.

  Args:
    model: fitted on the explanations.
    liar: the planted claims, judged by the context of the row where they were planted.
    evidence: of each planted explanation.
    groups: [rows] the document group of each.
    bootstrap: `samples` and `seed` of the intervals.
  """
  table = _joined(liar, evidence, groups)
  p, true = model.probability(liar.claims, table.values), liar.true
  means = [bootstrap_mean(one, table.groups, **bootstrap) for one in (p, true.astype(float))]
  believed, luck = means
  score = Score(
    "planted liar", "mean confidence", believed.value, believed.ci95, believed.n, luck.value
  )

  # Of the excess, not of the confidence: luck is estimated from the same claims.
  over = bootstrap_mean(p - true, table.groups, **bootstrap)
  error = (over.ci95[1] - over.ci95[0]) / 4 if over.ci95 else 0.0
  passed = over.value <= max(2 * error, _LIAR)
  detail = f"believed {believed.value:.2f}, true by luck {luck.value:.2f}"
  return [score], Gate("a planted liar is not believed", bool(passed), detail)


def _joined(found: Verdicts, evidence: Sequence[Evidence], groups: np.ndarray) -> _Table:
  """The evidence of the claims that were judged, in their order."""
  place = [{claim.id: j for j, claim in enumerate(one.claims)} for one in evidence]
  pairs = [(row, place[row][claim.id]) for row, claim in zip(found.row, found.claims)]
  values = np.array([evidence[row].values[j] for row, j in pairs]).reshape(-1, len(FEATURES))
  spread = np.array([evidence[row].spread[j] for row, j in pairs])
  return _Table(found, values, spread, groups[found.row])


def _by_truth(table: _Table, **bootstrap) -> list[Score]:
  """The mean of each feature of true claims, of false but related ones, and of the others."""
  true = table.found.true
  related = np.array([one.related is True for one in table.found.claims], bool)
  kinds = {
    "true claims": true,
    "false but related": ~true & related,
    "false and unrelated": ~true & ~related,
  }
  scores = []
  for row, mine in kinds.items():
    for j, name in enumerate(FEATURES):
      known = mine & np.isfinite(table.values[:, j])
      if known.any():
        one = bootstrap_mean(table.values[known, j], table.groups[known], **bootstrap)
        scores.append(Score(row, _NAMES[name], one.value, one.ci95, one.n))
    # What an AR that ignores its text would show as a signal.
    known = mine & np.isfinite(table.spread)
    if known.any():
      one = bootstrap_mean(table.spread[known], table.groups[known], **bootstrap)
      scores.append(Score(row, "SD over random deletions", one.value, one.ci95, one.n))
  return scores


def _calibrated(table: _Table, scores: list[Score], options: Options, seed: int) -> Trust:
  claims, truth, groups = table.found.claims, table.found.true, table.groups
  names = confidence.column_names(claims)
  x = confidence.columns(claims, table.values, names)
  fields = np.array([one.field for one in claims])

  # 1. The whole model and each part of it alone, all on the same folds.
  parts = {CONFIDENCE: list(range(len(names)))}
  for feature in FEATURES:
    j = names.index(feature)
    if np.isfinite(x[:, j]).any():
      parts[f"{_NAMES[feature]} only"] = [j]
  for kind in ("level", "field"):
    parts[f"{kind} only"] = [j for j, name in enumerate(names) if name.startswith(f"{kind}=")]
  found = {
    row: confidence.held_out(x[:, js], truth, groups, [names[j] for j in js], seed)
    for row, js in parts.items()
  }
  p, fold = found[CONFIDENCE]

  # 2. How well each ranks, within a fold; and by how much the whole ranks better.
  n, whole = len(truth), ranking.ranks(p, truth, fold, groups)
  for row, (mine, _) in found.items():
    ranks = ranking.ranks(mine, truth, fold, groups)
    ends = ranking.auc_interval(ranks, seed=seed)
    scores.append(Score(row, "AUC", ranks.auc, ends, n, 0.5))
    if row != CONFIDENCE:
      ends = ranking.auc_interval(whole, ranks, seed)
      scores.append(Score(row, _ADDED, whole.auc - ranks.auc, ends, n, 0.0))
  within = ranking.ranks(p, truth, [f"{a} {b}" for a, b in zip(fold, fields)], groups)
  if np.isfinite(within.auc):
    ends = ranking.auc_interval(within, seed=seed)
    scores.append(Score(CONFIDENCE, "AUC within a field", within.auc, ends, n, 0.5))

  # 3. Whether it means what it says.
  ece, error = calibration.calibration_error(p, truth), calibration.brier(p, truth)
  base = float(truth.mean())
  scores.append(Score(CONFIDENCE, "Brier", error, None, n, base * (1 - base)))
  scores.append(Score(CONFIDENCE, "ECE", ece, None, n))
  measured = {"auc": whole.auc, "auc_within_field": within.auc, "brier": error, "ece": ece}
  used = {
    "positions": options.positions,
    "samples": options.samples,
    "resamples": options.resamples,
  }
  model = confidence.fit(x, truth, names)
  # Where no field has claims of both kinds there is no AUC within fields, and JSON has no NaN.
  measured = {key: value if np.isfinite(value) else None for key, value in measured.items()}
  model = model._replace(options=used, measured={**measured, "claims": n, "true": base})
  curve = [(mean, share) for mean, share, _ in calibration.reliability(p, truth)]
  return Trust(scores, _gates(measured), curve, model, p, _verdict(scores, measured))


def _gates(measured: dict[str, float]) -> list[Gate]:
  return [
    Gate("confidence is calibrated", measured["ece"] <= 0.05, f"ECE {measured['ece']:.3f}"),
    Gate("confidence ranks claims", measured["auc"] >= 0.75, f"AUC {measured['auc']:.3f}"),
  ]


def _verdict(scores: list[Score], measured: dict[str, float]) -> str:
  """The sentence on how far confidence can be trusted."""
  gains = [one for one in scores if one.column == _ADDED]
  (own,) = [one for one in scores if (one.row, one.column) == (CONFIDENCE, "AUC")]
  ends = f" [{own.ci95[0]:.2f}, {own.ci95[1]:.2f}]" if own.ci95 else ""
  if own.ci95 is not None and own.ci95[0] <= 0.5:
    return f"The confidence does not tell true claims from false ones: AUC {own.value:.2f}{ends}."

  begin = f"The confidence tells true claims from false ones with AUC {own.value:.2f}{ends}"
  begin += f" and ECE {measured['ece']:.2f}"
  least = min(gains, key=lambda one: one.value)
  more = least.ci95 is not None and least.ci95[0] > 0
  rest = f"more than {least.row}" if more else f"no more for certain than {least.row}"
  return f"{begin}, {rest} ({least.value:+.2f})."
