"""An AR's value head, a matrix in a file of its own, and what its rows' norms say of it."""

import dataclasses
from pathlib import Path

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.numbers import check_largest, largest_of
from nla_jax.interop.base_models.strays import AR_FILE, has_whole_weights
from nla_jax.interop.pairs import lora_files
from nla_jax.interop.pairs.adapted import HEAD_FILE
from nla_jax.progress import say

# Rows shorter than this share of the median row say nothing; one that is so many times a short row says all there is.
_SMALL, _LARGE = 1e-6, 1e3


@dataclasses.dataclass(frozen=True)
class RowNorms:
  """Lengths of a head's rows, each of which makes one dimension of the reconstruction.

  Attributes:
    shortest: of all rows.
    median: likewise.
    longest: likewise.
    empty: how many are zero, or so short beside the median that they may as well be.
    loud: how many outweigh the others so far that every reconstruction points along them.
    rows: how many there are.
  """

  shortest: float
  median: float
  longest: float
  empty: int
  loud: int
  rows: int

  def __str__(self) -> str:
    return f"{self.shortest:.3g} to {self.longest:.3g}, in the median {self.median:.3g}"

  @property
  def complaint(self) -> str | None:
    """What to say of rows that make nothing, or all; None where there are none."""
    if self.loud:
      return (
        f"{self.loud} of the value head's {self.rows} rows outweigh the others (row norms {self}): every "
        "reconstruction points along them, whatever the text; a part of the file may be damaged, fetch it again"
      )
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
  # Against a short row that is no outlier itself: half the rows may be loud.
  most = _LARGE * np.quantile(norms[norms > least], 0.1) if (norms > least).any() else np.inf
  return RowNorms(
    shortest=float(norms.min()),
    median=float(np.median(norms)),
    longest=float(norms.max()),
    empty=int((norms <= least).sum()),
    loud=int((norms > most).sum()),
    rows=len(norms),
  )


def check_other_heads(directory: Path, weight: np.ndarray | None) -> None:
  """Raises NLAError where a directory's model files hold a head that is not the one in the head's own file.

  Args:
    directory: an AR's.
    weight: of the head's own file, None where there is none: then it is said how to make it.
  """
  if not has_whole_weights(directory):
    return
  files = tensor_files.TensorFiles(directory)
  for name in sorted(name for name in files.names if name.endswith("head.weight")):
    shape = files.entry(name).shape
    # A square one has the form of a value head; that of a vocabulary is a language model's, which no AR has.
    if len(shape) != 2 or shape[0] != shape[1]:
      continue
    if weight is None:
      raise NLAError(
        f"{directory} has no {HEAD_FILE}, and its model files hold {name} of that form: where it is the head, save it "
        f"alone, under the name weight, as {HEAD_FILE}"
      )
    if not np.array_equal(files.view(name).astype(np.float32), weight):
      raise NLAError(
        f"{directory} holds two heads, {HEAD_FILE} and another one as {name} in its model files: remove the tensor "
        "that is not the AR's head"
      )


def read_weight(path: Path, d_model: int) -> np.ndarray:
  """The head's matrix as its file has it, [out, in] float32.

  Raises:
    NLAError: there is none, it is another model's, or no reconstruction could come of it.
  """
  other = path.with_name(AR_FILE)
  if path.is_file() and other.is_file():
    raise NLAError(
      f"{path.parent} holds a head in {path.name} and in {other.name}: leave the AR's own"
    )
  if not path.is_file():
    check_other_heads(path.parent, None)

  if other.is_file():
    weight = lora_files.read_head(path.parent, d_model)
  else:
    weight = tensor_files.read_file(path, {"weight": (d_model, d_model)})["weight"]
  check_largest(largest_of(weight), f"{path}: weight", zero=False)
  return weight


def read_head(directory: Path, d_model: int) -> np.ndarray:
  """An AR's value head, [in, out]; rows that are zero are said in a line. Raises NLAError as `read_weight` does."""
  path = directory / HEAD_FILE
  weight = read_weight(path, d_model)
  check_other_heads(directory, weight)
  complaint = row_norms(weight).complaint
  if complaint:
    say(f"{path}: {complaint}")

  # torch's linear layers keep [out, in].
  return np.ascontiguousarray(weight.T)
