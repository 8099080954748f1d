"""Findings on disk: an evaluation that was stopped goes on with the suite that it had not finished."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax import files
from nla_jax.evaluation.findings import Finding, from_json, to_json
from nla_jax.evaluation.subject import Subject
from nla_jax.parallel import distributed


@dataclasses.dataclass(frozen=True)
class Kept:
  """A folder with a file for each finished suite.

  Attributes:
    folder: where the files lie; it is made when the first one is written.
    made_from: JSON values that say what was evaluated and how. A finding that was made from others is not read.
  """

  folder: Path
  made_from: dict[str, Any]

  def read(self, name: str) -> Finding | None:
    """The finding of a suite; None where it is not finished, or what lies there was made from something else."""
    held = files.read_json(self._file(name))
    # All processes have looked before one writes, so that all come to the same answer.
    distributed.wait(f"looked for the finding of {name}")
    if held is None or held.get("made_from") != self.made_from:
      return None
    return from_json(held["finding"])

  def write(self, name: str, finding: Finding) -> None:
    """Keeps the finding of a finished suite; the first process writes."""
    if distributed.is_first():
      files.write_json(self._file(name), {"made_from": self.made_from, "finding": to_json(finding)})

  def _file(self, name: str) -> Path:
    return self.folder / f"{name}.json"


def made_from(subject: Subject) -> dict[str, Any]:
  """What tells one evaluation from another: its settings, the activations, the texts and the parameters."""
  nlas = {"nla": subject.nla, "before_rl": subject.before_rl}
  sums = {name: [_sums(nla.av_params), _sums(nla.ar_params)] for name, nla in nlas.items() if nla}

  # The texts are those that suites read, not all that the store has.
  texts = "\n".join(subject.teacher_texts or ())
  return {
    "settings": dataclasses.asdict(subject.settings),
    "activations": _digest(np.ascontiguousarray(subject.activations).tobytes()),
    "teacher_texts": _digest(texts.encode()),
    "parameters": _digest(repr(sums).encode()),
  }


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def _sums(params: Any) -> list[float]:
  """The sum of magnitudes of each array: training moves all of them."""
  return [float(_sum(leaf)) for leaf in jax.tree.leaves(params)]


@jax.jit
def _sum(leaf) -> jax.Array:
  return jnp.sum(jnp.abs(leaf.astype(jnp.float32)))
