"""The array type of signatures, and the one way from vectors to their directions.

A model takes arrays on the host as well as on a device, traced ones included.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
# Of float32. Beyond them the factor itself would be no normal number.
_EXPONENTS = (-126, 126)


def namespace(*arrays: Any) -> Any:
  """jax.numpy where one of the arrays is JAX's, else numpy."""
  return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def halved_to_one(vectors: Any) -> Any:
  """Each vector times the power of two that brings its largest entry into [0.5, 1).

  The squares of what comes out neither overflow nor vanish, whatever float32 the entries were. A product with a power
  of two is exact, so what is computed of directions keeps every bit.

  Args:
    vectors: [..., d], float32 or float64; numpy, JAX or traced.

  Returns:
    [..., d] in the same dtype. A vector that is zero or not finite stays what it was. No gradient passes through the
    factor, on which no direction depends.
  """
  xp = namespace(vectors)
  largest = xp.max(xp.abs(vectors), axis=-1, keepdims=True)
  if xp is np:
    # The host may hold float64, whose exponents go further; `ldexp` takes them in one exact step.
    exponents = np.where(np.isfinite(largest), np.frexp(largest)[1], 0)
    return np.ldexp(vectors, -exponents)

  exponents = jnp.clip(jnp.frexp(jax.lax.stop_gradient(largest))[1], *_EXPONENTS)
  # The bits of a power of two: a device's own `exp2` need not be exact.
  factor = jax.lax.bitcast_convert_type((127 - exponents) << 23, jnp.float32)
  return vectors * factor.astype(vectors.dtype)
