"""The probability that a claim is true, from what the pair itself gives away: a logistic model, calibrated by document.

Its inputs are those of `evidence`, the level and the field. It is fitted with numpy on claims that the document judged,
and asked of claims that nobody can judge. Folds are whole document groups, so no document is both learned and tested.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax import files, quantities
from nla_jax.autoencoder.explanation import Claim
from nla_jax.errors import NLAError
from nla_jax.evaluation.claims.evidence import FEATURES

FORMAT = "nla_jax claim confidence 1"
DATA = "confidence"  # key of the fitted model in the data of a finding
FOLDS = 5
_RIDGE = 1.0  # on weights of standardised columns: of few claims they stay small
_STEPS = 50


class Model(NamedTuple):
  """A logistic model of claims.

  Attributes:
    names: of its columns: features, "level=…" and "field=…".
    mean: [columns] what stands in for a value that is missing.
    scale: [columns] by which columns are divided.
    weights: [columns] of the standardised ones.
    bias: log-odds of a claim that is average in everything.
    options: how the evidence was gathered: `positions`, `samples`, `resamples`.
    measured: what held-out documents said of it: "auc", "brier", "ece", "claims", …
  """

  names: tuple[str, ...]
  mean: np.ndarray
  scale: np.ndarray
  weights: np.ndarray
  bias: float
  options: dict[str, int] = {}  # noqa: RUF012 - never changed
  measured: dict[str, float | None] = {}  # noqa: RUF012

  def probability(self, claims: Sequence[Claim], values: np.ndarray) -> np.ndarray:
    """[n] the probability that each claim is true; `values` [n, features] as `evidence` gives them."""
    return self.of_columns(columns(claims, values, self.names))

  def of_columns(self, x: np.ndarray) -> np.ndarray:
    """[n] the same of columns [n, columns]."""
    return _sigmoid(_standard(x, self.mean, self.scale) @ self.weights + self.bias)

  def to_json(self) -> dict[str, Any]:
    """All of it as objects, lists, strings and numbers."""
    arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
    rest = {name: getattr(self, name) for name in ("bias", "options", "measured")}
    return {"format": FORMAT, "names": list(self.names), **arrays, **rest}

  def save(self, path: str | os.PathLike) -> None:
    """Writes the model to a file of JSON."""
    files.write_json(files.here(path), self.to_json())


def from_json(found: Any) -> Model:
  """The model that `Model.to_json` wrote. Raises NLAError where it is none."""
  if not isinstance(found, dict) or found.get("format") != FORMAT:
    raise NLAError(
      f"this is no confidence of claims: expected the object that Model.save wrote, {FORMAT!r}"
    )
  try:
    arrays = (np.array(found[name], float) for name in ("mean", "scale", "weights"))
    names, rest = tuple(found["names"]), (found["bias"], found["options"], found["measured"])
    model = Model(names, *arrays, *rest)
    whole = {len(names)} == {len(one) for one in (model.mean, model.scale, model.weights)}
  except (KeyError, TypeError, ValueError) as error:
    raise NLAError(f"this confidence of claims is damaged: {error}; save it again") from error
  if not whole:
    raise NLAError("this confidence of claims is damaged: not one number a column; save it again")
  return model


def load(path: str | os.PathLike) -> Model:
  """The model in a file: what `Model.save` wrote, or an evaluation's metrics.json with the suite `confabulation`.

  Raises:
    NLAError: there is no such file, or no model in it.
  """
  found = files.read_json(files.here(path))
  if found is None:
    raise NLAError(
      f"{os.fspath(path)}: there is no such file; expected one that Model.save wrote, or metrics.json"
    )

  kept = in_metrics(found)
  if kept is None and isinstance(found, dict) and "format" not in found:
    raise NLAError(
      f"{os.fspath(path)} holds no confidence of claims: run `nla eval --suites=confabulation` on this pair; where too "
      "few claims are true or false none is fitted, and the report says so"
    )
  return from_json(found if kept is None else kept)


def in_metrics(metrics: Any) -> Any:
  """The model that the suite `confabulation` left in metrics.json, as JSON; None where there is none."""
  suites = metrics.get(quantities.SUITES) if isinstance(metrics, dict) else None
  finding = suites.get("confabulation") if isinstance(suites, dict) else None
  data = finding.get("data") if isinstance(finding, dict) else None
  return data.get(DATA) if isinstance(data, dict) else None


def column_names(claims: Sequence[Claim]) -> tuple[str, ...]:
  """The columns that some claims need: the features, and their levels and fields."""
  levels = sorted({f"level={one.level}" for one in claims})
  return (*FEATURES, *levels, *sorted({f"field={one.field}" for one in claims}))


def columns(claims: Sequence[Claim], values: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """[n, columns] of claims and their evidence; NaN where a feature is missing."""
  kinds = [{f"level={one.level}", f"field={one.field}"} for one in claims]
  found = np.zeros((len(claims), len(names)))

  # A level or a field that was never learned has no column, and adds nothing.
  for j, name in enumerate(names):
    if name in FEATURES:
      found[:, j] = values[:, FEATURES.index(name)]
    else:
      found[:, j] = [name in kind for kind in kinds]
  return found


def fit(x: np.ndarray, truth: np.ndarray, names: Sequence[str], ridge: float = _RIDGE) -> Model:
  """The model of columns [n, columns] and truths [n], by Newton's method.

  Raises:
    NLAError: no claims.
  """
  if not len(x):
    raise NLAError("there are no claims to fit a confidence to: evaluate on more rows")
  # A column of nothing but NaN tells nothing.
  known = np.isfinite(x)
  counts = np.maximum(known.sum(axis=0), 1)
  filled = np.where(known, x, 0.0)
  mean = filled.sum(axis=0) / counts
  scale = np.sqrt(np.where(known, (filled - mean) ** 2, 0.0).sum(axis=0) / counts)
  scale = np.where(scale > 1e-9, scale, 1.0)

  design = np.concatenate([_standard(x, mean, scale), np.ones((len(x), 1))], axis=1)
  # The base rate is not drawn to a half.
  penalty = np.diag([ridge] * x.shape[1] + [1e-6])

  beta, y = np.zeros(design.shape[1]), np.asarray(truth, float)
  for _ in range(_STEPS):
    p = _sigmoid(design @ beta)
    gradient = design.T @ (p - y) + penalty @ beta
    curvature = (design * (p * (1 - p))[:, None]).T @ design + penalty
    step = np.linalg.solve(curvature, gradient)

    # Far from the optimum a full step can overshoot.
    beta = beta - step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
    if np.abs(step).max() < 1e-8:
      break
  return Model(tuple(names), mean, scale, beta[:-1], float(beta[-1]))


def held_out(
  x: np.ndarray, truth: np.ndarray, groups: np.ndarray, names: Sequence[str], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """[n] the probability of each claim by a model that saw no claim of its document group, and [n] its fold.

  Ranks are compared within a fold (`ranking.ranks`): a fold with few true claims leaves many to the model that
  judges it, and across folds that alone would rank false claims first.

  Raises:
    NLAError: fewer than two groups.
  """
  every, member = np.unique(groups, return_inverse=True)
  folds = min(FOLDS, len(every))
  if folds < 2:
    raise NLAError("a confidence of claims is calibrated by document: expected two groups or more")

  fold_of = np.random.default_rng(seed).permutation(len(every)) % folds
  found = np.zeros(len(x))
  for fold in range(folds):
    mine = fold_of[member] == fold
    found[mine] = fit(x[~mine], truth[~mine], names).of_columns(x[mine])
  return found, fold_of[member]


def _standard(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
  return np.where(np.isfinite(x), (x - mean) / scale, 0.0)


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
