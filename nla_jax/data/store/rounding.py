"""Activations in fewer bytes: how rows are kept in a store, and read back as float32.

float32   4 bytes a number, as the target gave them
bfloat16  2 bytes; three significant digits of each number
int8      1.06 bytes; whole numbers of a 127th of the largest of every 64 neighbours, since a residual stream has a few
          entries a thousand times as large as the others
"""

import ml_dtypes
import numpy as np

from nla_jax.errors import NLAError

ROWS = ("float32", "bfloat16", "int8")
SCALES = "activation_scales"  # [N, d / 64] float32 beside int8 rows
GROUP = 64  # neighbours that share a scale
_LARGEST = 127.0


def check(kept_as: str, d_model: int) -> None:
  """Raises NLAError where there is no such way to keep rows, or the width does not suit it."""
  if kept_as not in ROWS:
    raise NLAError(f"config.data.rows={kept_as!r}: expected {' or '.join(ROWS)}")
  if kept_as == "int8" and d_model % GROUP:
    raise NLAError(
      f"config.data.rows=int8: activations of width {d_model} do not divide into groups of {GROUP}; take bfloat16"
    )


def array_specs(kept_as: str, d_model: int) -> dict[str, tuple[tuple[int, ...], str]]:
  """The arrays of a store that hold activations: shape of a row and dtype of each."""
  arrays = {"activations": ((d_model,), kept_as)}
  if kept_as == "int8":
    arrays[SCALES] = ((d_model // GROUP,), "float32")
  return arrays


def rounded(activations: np.ndarray, kept_as: str) -> dict[str, np.ndarray]:
  """Rows [n, d] float32 as the arrays that hold them. Rows read back are the nearest that can be kept so."""
  if kept_as == "float32":
    return {"activations": activations}
  if kept_as == "bfloat16":
    return {"activations": activations.astype(ml_dtypes.bfloat16)}

  groups = activations.reshape(len(activations), -1, GROUP)  # [n, groups, GROUP]
  scales = np.abs(groups).max(-1) / _LARGEST
  # A group of zeros stays zeros.
  whole = np.rint(groups / np.where(scales, scales, 1.0)[..., None]).astype(np.int8)
  return {"activations": whole.reshape(activations.shape), SCALES: scales.astype(np.float32)}


def restored(activations: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
  """Rows [n, d] float32 of what `rounded` gave."""
  if scales is None:
    return activations.astype(np.float32, copy=False)
  groups = activations.reshape(len(activations), -1, GROUP).astype(np.float32)
  return (groups * scales[..., None]).reshape(activations.shape)
