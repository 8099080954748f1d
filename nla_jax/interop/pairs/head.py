"""An AR's value head, a matrix in a file of its own, and what its rows' norms say of it."""

import dataclasses
from pathlib import Path

import numpy as np

from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.numbers import check_largest, largest_of
from nla_jax.interop.pairs.adapted import HEAD_FILE
from nla_jax.progress import say

# Rows shorter than this share of the median row say nothing.
_SMALL = 1e-6


@dataclasses.dataclass(frozen=True)
class RowNorms:
  """Lengths of a head's rows, each of which makes one dimension of the reconstruction.

  Attributes:
    shortest: of all rows.
    median: likewise.
    longest: likewise.
    empty: how many are zero, or so short beside the median that they may as well be.
    rows: how many there are.
  """

  shortest: float
  median: float
  longest: float
  empty: int
  rows: int

  def __str__(self) -> str:
    return f"{self.shortest:.3g} to {self.longest:.3g}, in the median {self.median:.3g}"

  @property
  def complaint(self) -> str | None:
    """What to say of rows that make nothing; None where all do."""
    if not self.empty:
      return None
    return (
      f"{self.empty} of the value head's {self.rows} rows are zero (row norms {self}): so many dimensions of every "
      "reconstruction are empty; a part of the file may be lost, fetch it again"
    )


def row_norms(weight: np.ndarray) -> RowNorms:
  """The lengths of the rows of a head as its file has it, [out, in] float32."""
  norms = np.linalg.norm(weight.astype(np.float64), axis=1)
  # The median of the rows that are there: half a head of zeros would make zero the measure.
  there = norms[norms > 0]
  least = _SMALL * np.median(there) if len(there) else np.inf
  return RowNorms(
    shortest=float(norms.min()),
    median=float(np.median(norms)),
    longest=float(norms.max()),
    empty=int((norms <= least).sum()),
    rows=len(norms),
  )


def read_weight(path: Path, d_model: int) -> np.ndarray:
  """The head's matrix as its file has it, [out, in] float32.

  Raises:
    NLAError: there is none, it is another model's, or no reconstruction could come of it.
  """
  weight = tensor_files.read_file(path, {"weight": (d_model, d_model)})["weight"]
  check_largest(largest_of(weight), f"{path}: weight", zero=False)
  return weight


def read_head(directory: Path, d_model: int) -> np.ndarray:
  """An AR's value head, [in, out]; rows that are zero are said in a line. Raises NLAError as `read_weight` does."""
  path = directory / HEAD_FILE
  weight = read_weight(path, d_model)
  complaint = row_norms(weight).complaint
  if complaint:
    say(f"{path}: {complaint}")

  # torch's linear layers keep [out, in].
  return np.ascontiguousarray(weight.T)
