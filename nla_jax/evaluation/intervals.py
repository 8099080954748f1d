"""The uncertainty of a measured number: cluster bootstraps over document groups, paired where rows are shared.

Of fewer than eight groups a percentile bootstrap is too narrow (an interval of "95 %" holds the truth 51 times in 100
with two). There Student's t over groups takes its place; `benchmarks/interval_coverage.py` measures both.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nla_jax.autoencoder.fve import fve_per_activation
from nla_jax.errors import NLAError

# Bootstrap draws are made this many at a time, so memory stays at _CHUNK x groups x 8 bytes.
_CHUNK = 256
FEW_GROUPS = 8  # below so many, t intervals
# 97.5 % points of Student's t with 1, 2, … degrees of freedom: one less than groups.
_T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A number measured on held-out activations, with its sampling uncertainty.

  Attributes:
    value: the point estimate, on all rows.
    ci95: (low, high), the 95 % percentile interval of a cluster bootstrap, or of Student's t where there are fewer
      than `FEW_GROUPS` clusters; None when there is only one, from which no spread can be estimated.
    n: number of activations (not of clusters) behind `value`.
  """

  value: float
  ci95: tuple[float, float] | None
  n: int

  def to_dict(self) -> dict[str, Any]:
    """JSON form: {"value": float, "ci95": [low, high] or None, "n": int}."""
    return {
      "value": self.value,
      "ci95": None if self.ci95 is None else list(self.ci95),
      "n": self.n,
    }


def bootstrap_mean(values: Any, groups: Any, *, samples: int = 2000, seed: int = 0) -> Estimate:
  """Estimates a mean with a cluster bootstrap: whole groups are drawn with replacement, never single rows.

  Positions of one document share their words, so rows are not independent and a bootstrap over rows would be
  too narrow. Of fewer than `FEW_GROUPS` groups the interval is that of Student's t over groups.

  Args:
    values: [n], finite.
    groups: [n], the document or page of each row (any hashable numpy dtype).
    samples: bootstrap draws.
    seed: the draws depend on this, `samples` and the number of groups alone.

  Returns:
    Estimate of the mean over rows.

  Raises:
    NLAError: no rows, lengths that differ, or a value that is not finite.
  """
  values = np.asarray(values, np.float64)
  groups = np.asarray(groups)
  if values.ndim != 1 or values.size == 0 or groups.shape != values.shape:
    raise NLAError(
      f"expected one group for each of at least one value, got values {values.shape} and groups {groups.shape}"
    )
  if not np.isfinite(values).all():
    raise NLAError(
      f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite; a failed "
      "row must be given a value (or left out, and counted) before it is averaged"
    )

  sizes, sums = _by_group(groups, values)
  value, n = float(values.mean()), int(values.size)
  if len(sizes) < 2:
    return Estimate(value=value, ci95=None, n=n)

  if len(sizes) < FEW_GROUPS:
    return Estimate(value=value, ci95=t_interval(sums, sizes), n=n)
  return Estimate(value=value, ci95=percentile_interval(sums, sizes, samples, seed), n=n)


def percentile_interval(
  sums: np.ndarray, sizes: np.ndarray, samples: int, seed: int
) -> tuple[float, float]:
  """The 95 % bootstrap interval of a mean over rows, of the sum [groups] and the rows [groups] of each group."""
  # Groups differ in size, so a draw is divided by the rows it holds, not by the rows there are.
  chunks = _draws(len(sizes), samples, seed)
  return _percentiles(np.concatenate([(draws @ sums) / (draws @ sizes) for draws in chunks]))


def t_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
  """The 95 % interval of the ratio of two sums over groups, by Student's t.

  Args:
    above: [groups] the part of each group in the numerator, such as the sum of its rows.
    below: [groups] likewise in the denominator, such as its rows; at most `FEW_GROUPS` - 1 groups, at least two.
  """
  # How far each group pulls the ratio, to first order: groups of all sizes count as they do in the ratio itself.
  groups, ratio = len(above), above.sum() / below.sum()
  pulls = (above - ratio * below) / below.sum()
  half = _T975[groups - 2] * math.sqrt(groups / (groups - 1) * float(pulls @ pulls))
  return float(ratio - half), float(ratio + half)


def _by_group(groups: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
  """Rows [groups] of each group, and the sum [groups] of each column there."""
  # All that a draw needs: rows are not touched again.
  _, member = np.unique(groups, return_inverse=True)
  sizes = np.bincount(member).astype(np.float64)
  return [sizes, *(np.bincount(member, weights=column) for column in columns)]


def _draws(groups: int, samples: int, seed: int) -> Iterator[np.ndarray]:
  """How often each group is drawn, [chunk, groups] at a time."""
  # Multinomial: counts are drawn rather than lists of groups.
  generator = np.random.default_rng(seed)
  uniform = np.full(groups, 1.0 / groups)
  for start in range(0, samples, _CHUNK):
    yield generator.multinomial(groups, uniform, size=min(_CHUNK, samples - start))


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(drawn, [0.025, 0.975])
  return float(low), float(high)


def bootstrap(
  errors: Any, groups: Any, baseline: float, *, samples: int = 2000, seed: int = 0
) -> Estimate:
  """Estimates the FVE of `errors` [n] with a 95 % cluster-bootstrap interval over `groups` [n].

  The baseline is computed once on all evaluated activations and held fixed: the interval speaks of the
  reconstruction, not of the baseline's own sampling error, and intervals of methods on the same rows stay comparable.

  Raises:
    NLAError: the baseline is not positive; and as `bootstrap_mean`.
  """
  _check_baseline(baseline)
  mean_error = bootstrap_mean(errors, groups, samples=samples, seed=seed)
  if mean_error.ci95 is not None:
    # No error is below zero, which a wide t interval of small errors does not know.
    low, high = mean_error.ci95
    mean_error = dataclasses.replace(mean_error, ci95=(max(low, 0.0), high))
  return _falling(mean_error, lambda error: fve_per_activation(error, baseline))


def paired_bootstrap(
  errors_a: Any,
  errors_b: Any,
  groups: Any,
  baseline: float,
  *,
  samples: int = 2000,
  seed: int = 0,
) -> Estimate:
  """Estimates the FVE of A less the FVE of B on the same rows; the baseline is held fixed.

  The same groups are drawn for both, so what is hard about a document cancels: much tighter than comparing
  two separate intervals.

  Raises:
    NLAError: the two have not the same rows; and as `bootstrap`.
  """
  errors_a, errors_b = _pair(errors_a, errors_b)
  _check_baseline(baseline)
  difference = bootstrap_mean(errors_a - errors_b, groups, samples=samples, seed=seed)
  return _falling(difference, lambda error: 0.0 - error / baseline)


def _pair(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
  """Both sides of a comparison as float64. Raises NLAError where they have not the same rows."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise NLAError(
      f"a paired comparison needs the same rows on both sides, got {a.shape} and {b.shape}"
    )
  return a, b


def paired_retention(
  after: Any, before: Any, groups: Any, baseline: float, *, samples: int = 2000, seed: int = 0
) -> Estimate | None:
  """Estimates the FVE of `after` as a share of that of `before`, errors [n] of the same rows.

  The same groups are drawn for both; see `bootstrap_ratio`.

  Returns:
    The estimate; None where `before` has no FVE above zero.

  Raises:
    NLAError: the two have not the same rows; and as `bootstrap`.
  """
  _check_baseline(baseline)
  kept, whole = (baseline - np.asarray(one, np.float64) for one in (after, before))
  return bootstrap_ratio(kept, whole, groups, samples=samples, seed=seed)


def bootstrap_ratio(
  above: Any, below: Any, groups: Any, *, samples: int = 2000, seed: int = 0
) -> Estimate | None:
  """Estimates the ratio of two sums over the same rows, with whole groups drawn for both.

  There is no interval where a draw has nothing below (or the t interval of few groups reaches that): ratios to
  something near zero are of any size.

  Args:
    above: [n] the part of each row in the numerator.
    below: [n] likewise in the denominator.
    groups: [n], the document or page of each row.
    samples: bootstrap draws.
    seed: of the draws.

  Returns:
    The estimate; None where the denominator is not above zero.

  Raises:
    NLAError: the two have not the same rows; and as `bootstrap_mean`.
  """
  above, below = _pair(above, below)
  # It checks rows, groups and values.
  n = bootstrap_mean(above - below, groups, samples=1, seed=seed).n
  if below.sum() <= 0:
    return None

  value = float(above.sum() / below.sum())
  sizes, kept, whole = _by_group(np.asarray(groups), above, below)
  if len(sizes) < 2:
    return Estimate(value=value, ci95=None, n=n)
  if len(sizes) < FEW_GROUPS:
    surely = t_interval(whole, sizes)[0] > 0
    return Estimate(value=value, ci95=t_interval(kept, whole) if surely else None, n=n)

  ratios = []
  for draws in _draws(len(sizes), samples, seed):
    if (draws @ whole <= 0).any():
      return Estimate(value=value, ci95=None, n=n)
    ratios.append((draws @ kept) / (draws @ whole))
  return Estimate(value=value, ci95=_percentiles(np.concatenate(ratios)), n=n)


def _check_baseline(baseline: float) -> None:
  if not (math.isfinite(baseline) and baseline > 0):
    raise NLAError(
      f"the FVE baseline must be a positive number, got {baseline}; take it from "
      "baseline_variance(activations)"
    )


def _falling(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
  """The estimate of a falling function of what was estimated."""
  ci95 = estimate.ci95
  if ci95 is not None:
    ci95 = (function(ci95[1]), function(ci95[0]))  # what falls swaps the ends
  return Estimate(value=function(estimate.value), ci95=ci95, n=estimate.n)


def share(hits: Any) -> Estimate:
  """Estimates a share of independent trials with Wilson's 95 % interval, which is right at 0 and at 1 too.

  Args:
    hits: [n] booleans, one for each trial: rows of one document are no trials of their own, see `bootstrap_mean`.

  Raises:
    NLAError: there is no trial.
  """
  hits = np.asarray(hits, bool)
  if hits.ndim != 1 or not hits.size:
    raise NLAError(f"expected at least one trial, got an array of shape {hits.shape}")
  n, p, z = hits.size, float(hits.mean()), 1.959964

  # Wilson 1927: the values whose normal interval would hold what was seen.
  centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
  low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
  return Estimate(value=p, ci95=(max(low, 0.0), min(high, 1.0)), n=n)
