"""How well an activation was rebuilt: the one definition of FVE, and its uncertainty.

Only directions count. Predictions and golds are scaled to the same norm, so with u = v / ||v||

  mse_nrm(p, g) = ||u_p - u_g||^2 = 2 (1 - cos)        in [0, 4], 2 when orthogonal
  b             = E ||u_g - mu||^2,   mu = E u_g       in [0, 1], the error of the best constant answer
  FVE           = 1 - E[mse_nrm] / b                   1 is perfect, 0 is no better than the constant mu

(The NLA literature scales both to sqrt(d) and averages over dimensions; that is the same number.) mu is *not*
scaled back to unit norm. Doing so makes the baseline worse and FVE larger without any better reconstruction
(Qwen2.5-7B: b 0.72 against 0.94), so that variant exists here only as `fve_inflated`.

`normalise`, `cosine`, `mse_nrm` and `fve` take numpy or JAX arrays, traced ones too, and answer in kind:
training and evaluation share them. The rest runs on the host in float64.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.errors import NLAError

_SMALLEST_SQUARED_NORM = 1e-24


def _namespace(*arrays: Any) -> Any:
  return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def normalise(vectors: Any, scale: float = 1.0) -> Any:
  """Scales each vector to norm `scale`: v / max(||v||, 1e-12) * scale, computed in float32 or better.

  A zero vector stays zero, and the gradient there is finite: the floor is applied below the square root.

  Args:
    vectors: [..., d], any floating dtype.
    scale: the norm of the result.

  Returns:
    [..., d] in float32, or float64 where the input was.
  """
  xp = _namespace(vectors)
  vectors = xp.asarray(vectors)
  vectors = vectors.astype(xp.promote_types(vectors.dtype, xp.float32))
  squared = xp.sum(vectors * vectors, axis=-1, keepdims=True)
  return vectors * (scale / xp.sqrt(xp.maximum(squared, _SMALLEST_SQUARED_NORM)))


def cosine(predictions: Any, golds: Any) -> Any:
  """Cosine similarity of matching rows: [..., d], [..., d] -> [...]. Zero where either vector is zero.

  Never report it alone: where b is 0.04 (Gemma), a constant answer already has cosine 0.98.
  """
  xp = _namespace(predictions, golds)
  return xp.sum(normalise(predictions) * normalise(golds), axis=-1)


def mse_nrm(predictions: Any, golds: Any) -> Any:
  """Direction error of matching rows, 2 (1 - cos): [..., d], [..., d] -> [...], in [0, 4].

  Summed from the difference rather than from the cosine: float32 loses half its digits in 1 - cos near 1. A
  zero prediction scores 1 (it has no direction, and lies at distance one from every unit vector).
  """
  xp = _namespace(predictions, golds)
  difference = normalise(predictions) - normalise(golds)
  return xp.sum(difference * difference, axis=-1)


def _unit_rows(golds: Any) -> np.ndarray:
  golds = np.asarray(golds)
  if golds.ndim != 2 or golds.shape[0] < 2:
    raise NLAError(
      f"the FVE baseline needs activations [n, d] with n of 2 or more, got shape {golds.shape}; "
      "evaluate on more positions"
    )
  units = normalise(golds.astype(np.float64))
  if not np.isfinite(units).all():
    bad = int((~np.isfinite(units).all(axis=-1)).sum())
    raise NLAError(
      f"{bad} of {len(units)} activations are not finite; extract them again (nla extract)"
    )
  return units


def baseline_variance(golds: Any) -> float:
  """b, the error of the best constant answer, in the unit of `mse_nrm`: what FVE is measured against.

  Args:
    golds: [n, d], the raw activations that are evaluated.

  Returns:
    mean ||u - mu||^2 over rows, with mu the un-normalised mean of the unit rows u; in [0, 1].

  Raises:
    NLAError: fewer than two rows, a non-finite one, or all of them in one direction (FVE is then undefined).
  """
  units = _unit_rows(golds)
  b = float(np.square(units - units.mean(axis=0)).sum(axis=-1).mean())
  if b < 1e-9:
    raise NLAError(
      f"the {len(units)} activations all point the same way (baseline variance {b:.1e}), so FVE "
      "is undefined; evaluate on more varied positions or another layer"
    )
  return b


def fve(mse: Any, b: float) -> Any:
  """Fraction of variance explained, 1 - mean(mse) / b. At most 1; negative when worse than a constant.

  Args:
    mse: [n], from `mse_nrm`; numpy or JAX.
    b: from `baseline_variance`.

  Returns:
    A scalar of the array library of `mse`.
  """
  return 1.0 - _namespace(mse).mean(mse) / b


def fve_per_activation(mse: Any, b: float) -> Any:
  """1 - mse / b for each activation, [n]. Its mean is the FVE; a single one can be far below zero."""
  return 1.0 - mse / b


def baseline_variance_inflated(golds: Any) -> float:
  """The baseline with mu scaled back to unit norm, 2 (1 - ||mu||), never below `baseline_variance`."""
  mean = _unit_rows(golds).mean(axis=0)
  return float(2.0 * (1.0 - np.linalg.norm(mean)))


def fve_inflated(mse: Any, golds: Any) -> float:
  """FVE against `baseline_variance_inflated`: for comparison with numbers published so, nothing else."""
  return float(1.0 - np.mean(np.asarray(mse, np.float64)) / baseline_variance_inflated(golds))
