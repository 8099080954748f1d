"""The first pass: a score of every token from its activation alone, without a word.

Each kind of score is compared with the transcript's own tokens, as the share of them that score less: kinds of
different units can then be joined, and the greatest of a token's shares is its score.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from nla_jax.errors import NLAError
from nla_jax.evaluation.lenses import lens
from nla_jax.reading.complete import Target
from nla_jax.watching.reference import Reference


class Probe(NamedTuple):
  """A linear probe of what is watched for.

  Attributes:
    weights: [d_model].
    bias: a number.
  """

  weights: np.ndarray
  bias: float


class Signals(NamedTuple):
  """What scores tokens; None where there is none.

  Attributes:
    reference: of ordinary activations: novelty.
    probe: of what is watched for.
    known: [k, d_model] activations whose explanations spoke of it: the cosine to the nearest.
    target: the whole model, whose output layer reads the activation: how surprising the next token is to it.
  """

  reference: Reference | None = None
  probe: Probe | None = None
  known: np.ndarray | None = None
  target: Target | None = None

  @property
  def names(self) -> list[str]:
    """The kinds of score that there are."""
    return [name for name, one in zip(self._fields, self) if one is not None]


def scores(
  signals: Signals, activations: Float[np.ndarray, "n d"], next_ids: Sequence[int]
) -> Float[np.ndarray, " n"]:
  """The score of each token, in [0, 1]; all 0 where nothing scores.

  Args:
    signals: what scores.
    activations: of the tokens.
    next_ids: the token that comes after each; -1 of the last.
  """
  rows = np.asarray(activations, np.float32)
  found = []
  if signals.reference is not None:
    found.append(signals.reference.novelty(rows))
  if signals.probe is not None:
    found.append(rows @ signals.probe.weights + signals.probe.bias)
  if signals.known is not None:
    found.append((_unit(rows) @ _unit(signals.known).T).max(axis=1))
  if signals.target is not None:
    found.append(lens.surprise(signals.target, rows, next_ids))
  if not found:
    return np.zeros(len(rows))
  return np.max([_shares(one) for one in found], axis=0)


def load_probe(path: Path, d_model: int) -> Probe:
  """A probe from an .npz file with `weights` [d_model] and `bias`.

  Raises:
    NLAError: it holds none of that width.
  """
  held = _arrays(path, "a probe: arrays weights and bias")
  weights = np.asarray(held.get("weights", ()), np.float32)
  if weights.shape != (d_model,) or not np.isfinite(weights).all():
    raise NLAError(f"{path}: weights of shape {weights.shape}, expected {d_model} finite numbers")
  return Probe(weights, float(np.asarray(held.get("bias", 0.0))))


def load_known(path: Path, d_model: int) -> np.ndarray:
  """Known activations from an .npz file with `activations` [k, d_model]. Raises NLAError where it holds none."""
  found = np.asarray(_arrays(path, "activations").get("activations", ()), np.float32)
  if found.ndim != 2 or found.shape[1] != d_model or not len(found) or not np.isfinite(found).all():
    raise NLAError(f"{path}: activations of shape {found.shape}, expected [k, {d_model}], finite")
  return found


def _arrays(path: Path, what: str) -> dict[str, np.ndarray]:
  try:
    with np.load(path) as held:
      return {name: held[name] for name in held.files}
  except (OSError, ValueError) as error:
    raise NLAError(f"{path} cannot be read ({error}): give an .npz file with {what}") from error


def _unit(rows: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norms > 0, norms, 1)


def _shares(values: np.ndarray) -> np.ndarray:
  """The share of the values that are less, of each."""
  ordered = np.sort(values)
  return np.searchsorted(ordered, values, side="left") / max(len(values), 1)
