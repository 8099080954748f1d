"""What a weight can be: finite, and no larger than weights of trained models are."""

import math

import numpy as np

from nla_jax.errors import NLAError

# float16, in which models are served, ends at 65,504. Products with much larger weights overflow further on, where
# nothing says why, or leave one direction for every text.
LARGEST = 1e6


def check_largest(largest: float, name: str, *, zero: bool = True) -> None:
  """Raises NLAError where a tensor cannot be a trained model's.

  Args:
    largest: its largest magnitude, NaN where it holds one.
    name: what the message calls it.
    zero: it may be zero throughout, as a bias may.
  """
  remedy = "the file is damaged or its training failed; fetch it again or take another checkpoint"
  if not math.isfinite(largest):
    raise NLAError(f"{name} holds NaN or infinity: {remedy}")
  if largest > LARGEST:
    raise NLAError(
      f"{name} holds numbers up to {largest:.1e}, weights of trained models stay far below {LARGEST:.0e}: {remedy}"
    )
  if largest == 0 and not zero:
    raise NLAError(f"{name} is zero throughout: {remedy}")


def largest_of(array: np.ndarray) -> float:
  """The largest magnitude in an array on the host; NaN where it holds one, 0 where it is empty."""
  return float(np.abs(array).max(initial=0.0))
