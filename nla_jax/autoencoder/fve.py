"""How well an activation was rebuilt: the one definition of FVE.

Only directions count. Predictions and activations are scaled to the same norm, so with u = v / ||v||

  mse_nrm(p, a) = ||u_p - u_a||^2 = 2 (1 - cos)        in [0, 4], 2 when orthogonal
  baseline      = E ||u_a - mu||^2,   mu = E u_a       in [0, 1], the error of the best constant answer
  FVE           = 1 - E[mse_nrm] / baseline            1 is perfect, 0 is no better than the constant mu

(The NLA literature scales both to sqrt(d) and averages over dimensions; that is the same number.) mu is *not*
scaled back to unit norm. Doing so makes the baseline worse and FVE larger without any better reconstruction
(Qwen2.5-7B: 0.72 against 0.94), so that variant exists here only as `fve_inflated`.

`normalise`, `cosine`, `mse_nrm`, `fve` and `fve_per_activation` take numpy or JAX arrays, traced ones too, and answer
in kind: training and evaluation share them. The baselines are computed on the host in float64.
"""

from typing import Any

import numpy as np

from nla_jax.arrays import halved_to_one, namespace
from nla_jax.autoencoder import given
from nla_jax.errors import NLAError

_SMALLEST_SQUARED_NORM = 1e-24


def normalise(vectors: Any, scale: float = 1.0) -> Any:
  """Scales each vector to norm `scale`: v / ||v|| * scale, computed in float32 or better.

  Vectors of any finite size have their direction: the largest entry is brought near 1 first, exactly. A zero vector
  stays zero, and the gradient there is finite: a floor is applied below the square root.

  Args:
    vectors: [..., d], any floating dtype.
    scale: the norm of the result.

  Returns:
    [..., d] in float32, or float64 where the input was.
  """
  xp = namespace(vectors)
  vectors = xp.asarray(vectors)
  vectors = halved_to_one(vectors.astype(xp.promote_types(vectors.dtype, xp.float32)))

  # The floor stands below the root: the gradient of the root of 0 is infinite.
  squared = xp.sum(vectors * vectors, axis=-1, keepdims=True)
  return vectors * (scale / xp.sqrt(xp.maximum(squared, _SMALLEST_SQUARED_NORM)))


def cosine(predictions: Any, activations: Any) -> Any:
  """Cosine similarity of matching rows: [..., d], [..., d] -> [...]. Zero where either vector is zero.

  Never report it alone: where the baseline is 0.04 (Gemma), a constant answer already has cosine 0.98.
  """
  xp = namespace(predictions, activations)
  return xp.sum(normalise(predictions) * normalise(activations), axis=-1)


def mse_nrm(predictions: Any, activations: Any) -> Any:
  """Direction error of matching rows, 2 (1 - cos): [..., d], [..., d] -> [...], in [0, 4].

  Summed from the difference rather than from the cosine: float32 loses half its digits in 1 - cos near 1. A
  zero prediction scores 1 (it has no direction, and lies at distance one from every unit vector).
  """
  xp = namespace(predictions, activations)

  # Not 2 - 2 cos: of two directions that nearly agree, float32 would keep half of the digits.
  difference = normalise(predictions) - normalise(activations)
  return xp.sum(difference * difference, axis=-1)


def _unit_rows(activations: Any) -> np.ndarray:
  activations = given.numbers(activations)
  if activations.ndim != 2 or activations.shape[0] < 2 or activations.shape[1] == 0:
    raise NLAError(
      f"the FVE baseline needs activations [n, d] with n of 2 or more and d of 1 or more, got shape "
      f"{activations.shape}; evaluate on more positions"
    )
  units = normalise(activations.astype(np.float64))
  if not np.isfinite(units).all():
    bad = int((~np.isfinite(units).all(axis=-1)).sum())
    raise NLAError(
      f"{bad} of {len(units)} activations are not finite; extract them again (nla extract)"
    )
  return units


def baseline_variance(activations: Any) -> float:
  """The error of the best constant answer, in the unit of `mse_nrm`: what FVE is measured against.

  Args:
    activations: [n, d], the raw activations that are evaluated.

  Returns:
    mean ||u - mu||^2 over rows, with mu the un-normalised mean of the unit rows u; in [0, 1].

  Raises:
    NLAError: fewer than two rows, a non-finite one, or all of them in one direction (FVE is then undefined).
  """
  units = _unit_rows(activations)

  # mu is not scaled back to unit norm: the mean itself is the constant of the least squared error.
  baseline = float(np.square(units - units.mean(axis=0)).sum(axis=-1).mean())
  if baseline < 1e-9:
    raise NLAError(
      f"the {len(units)} activations all point the same way (baseline variance {baseline:.1e}), so FVE "
      "is undefined; evaluate on more varied positions or another layer"
    )
  return baseline


def fve(errors: Any, baseline: float) -> Any:
  """Fraction of variance explained, 1 - mean(errors) / baseline. At most 1; negative when worse than a constant.

  Args:
    errors: [n] from `mse_nrm`, or their mean; numpy, JAX or a number.
    baseline: from `baseline_variance`.

  Returns:
    A scalar of the array library and dtype of `errors`.
  """
  return fve_per_activation(namespace(errors).mean(errors), baseline)


def fve_per_activation(errors: Any, baseline: float) -> Any:
  """FVE of each activation, 1 - errors / baseline. Its mean is the FVE; a single one can be far below zero.

  Args:
    errors: [...] from `mse_nrm`; numpy, JAX or a number.
    baseline: from `baseline_variance`.

  Returns:
    [...] of the array library and dtype of `errors`.
  """
  return 1.0 - errors / baseline


def retention(after: Any, before: Any, baseline: float) -> float | None:
  """FVE after a change as a share of FVE before it; None where there was none above zero to keep.

  Args:
    after: [n] from `mse_nrm`, of what was rebuilt after the change.
    before: [n] of the same activations before it.
    baseline: from `baseline_variance`.
  """
  kept, whole = (float(fve(np.asarray(one, np.float64), baseline)) for one in (after, before))
  return kept / whole if whole > 0 else None


def cosine_of(error: Any) -> Any:
  """The cosine that belongs to an error of `mse_nrm`, 1 - error / 2; that of a mean error is the mean cosine."""
  return 1.0 - error / 2


def baseline_variance_inflated(activations: Any) -> float:
  """The baseline with mu scaled back to unit norm, 2 (1 - ||mu||), never below `baseline_variance`."""
  mean = _unit_rows(activations).mean(axis=0)
  return float(2.0 * (1.0 - np.linalg.norm(mean)))


def fve_inflated(errors: Any, activations: Any) -> float:
  """FVE against `baseline_variance_inflated`: for comparison with numbers published so, nothing else."""
  return float(fve(np.asarray(errors, np.float64), baseline_variance_inflated(activations)))
