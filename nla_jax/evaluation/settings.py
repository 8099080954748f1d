"""How an evaluation is done."""

import dataclasses

from nla_jax.errors import NLAError

PRESETS = {"quick": 50, "standard": 250, "full": 1000}  # items of a suite that answers a question


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How an evaluation is done.

  Attributes:
    rows: at most so many held-out rows, drawn with `seed`.
    seed: of the choice of rows, of the draws and of the bootstrap.
    batch: explanations sampled at once.
    bootstrap_samples: of the intervals, which resample document groups.
    best_of: most explanations drawn of an activation, of which the AR keeps the best; 0 or 1 leaves that out.
    best_of_rows: rows on which it is measured, since it samples `best_of` times as much.
    preset: of suites that answer a question, a key of `PRESETS`: how many items they look at.
    judge: of these suites, a file that describes a language model by provider; "" for none.
    baselines: of these suites, whether activations are read without an AV as well (`rivals`).
    sae: of these suites, a folder with a sparse autoencoder of this block; "" trains one on the training rows.

  Raises:
    NLAError: there is no such preset.
  """

  rows: int = 500
  seed: int = 0
  batch: int = 64
  bootstrap_samples: int = 2000
  best_of: int = 0
  best_of_rows: int = 96
  preset: str = "standard"
  judge: str = ""
  baselines: bool = True
  sae: str = ""

  def __post_init__(self):
    if self.preset not in PRESETS:
      raise NLAError(f"there is no preset {self.preset!r} of suites; expected {', '.join(PRESETS)}")

  @property
  def items(self) -> int:
    """Items of a suite that answers a question."""
    return PRESETS[self.preset]
