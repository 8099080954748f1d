"""The uncertainty of a measured number: cluster bootstraps over document groups, paired where rows are shared."""

import dataclasses
import math
from typing import Any

import numpy as np

from nla_jax.errors import NLAError

# Bootstrap draws are made this many at a time, so memory stays at _CHUNK x groups x 8 bytes.
_CHUNK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A number measured on held-out activations, with its sampling uncertainty.

  Attributes:
    value: the point estimate, on all rows.
    ci95: (low, high), the 95 % percentile interval of a cluster bootstrap; None when there is only one
      cluster, from which no spread can be estimated.
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
  """Mean with a cluster bootstrap: whole groups are drawn with replacement, never single rows.

  Positions of one document share their words, so rows are not independent and a bootstrap over rows would be
  too narrow.

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
  _, member = np.unique(groups, return_inverse=True)
  sizes = np.bincount(member).astype(np.float64)  # [groups]
  sums = np.bincount(member, weights=values)
  value, n = float(values.mean()), int(values.size)
  if len(sizes) < 2:
    return Estimate(value=value, ci95=None, n=n)
  generator = np.random.default_rng(seed)
  uniform = np.full(len(sizes), 1.0 / len(sizes))
  means = []
  for start in range(0, samples, _CHUNK):
    draws = generator.multinomial(
      len(sizes), uniform, size=min(_CHUNK, samples - start)
    )  # [chunk, groups]
    means.append((draws @ sums) / (draws @ sizes))
  low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
  return Estimate(value=value, ci95=(float(low), float(high)), n=n)


def bootstrap(mse: Any, groups: Any, b: float, *, samples: int = 2000, seed: int = 0) -> Estimate:
  """FVE of `mse` [n] with a 95 % cluster-bootstrap interval over `groups` [n].

  b is computed once on all evaluated golds and held fixed: the interval speaks of the reconstruction, not of
  the baseline's own sampling error, and intervals of methods on the same rows stay comparable.
  """
  estimate = bootstrap_mean(mse, groups, samples=samples, seed=seed)
  return _as_fve(estimate, offset=1.0, b=b)


def paired_bootstrap(
  mse_a: Any, mse_b: Any, groups: Any, b: float, *, samples: int = 2000, seed: int = 0
) -> Estimate:
  """FVE of A less FVE of B on the same rows, with the interval of the difference; b is held fixed.

  The same groups are drawn for both, so what is hard about a document cancels: much tighter than comparing
  two separate intervals.
  """
  mse_a, mse_b = np.asarray(mse_a, np.float64), np.asarray(mse_b, np.float64)
  if mse_a.shape != mse_b.shape:
    raise NLAError(
      f"a paired comparison needs the same rows on both sides, got {mse_a.shape} and {mse_b.shape}"
    )
  estimate = bootstrap_mean(mse_a - mse_b, groups, samples=samples, seed=seed)
  return _as_fve(estimate, offset=0.0, b=b)


def _as_fve(estimate: Estimate, *, offset: float, b: float) -> Estimate:
  """offset - estimate / b, which swaps the interval's ends."""
  if not (math.isfinite(b) and b > 0):
    raise NLAError(
      f"the FVE baseline must be a positive number, got {b}; take it from baseline_variance(golds)"
    )
  ci95 = (
    None
    if estimate.ci95 is None
    else (offset - estimate.ci95[1] / b, offset - estimate.ci95[0] / b)
  )
  return Estimate(value=offset - estimate.value / b, ci95=ci95, n=estimate.n)
