"""What finished stages say about themselves: the facts in their manifests, by name.

A stage writes them with `Stage.finish(name=value, …)`; who reads them asks for one of these records. A manifest may
hold more (that of a store that `nla convert` made does); what a record asks for must be there, unless it has a default,
which stands for what an earlier version did not say.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from nla_jax.errors import NLAError
from nla_jax.run.stage import Stage


class Extracted(NamedTuple):
  """Of `extract`.

  Attributes:
    rows: activations in the store.
    documents: documents that they are of.
    groups: articles, or other groups of documents that stay in one split.
    d_model: width of an activation.
    layer: the block whose output they are, 0-based.
    rows_by_split: {split: rows}.
    notes: sentences on what was left out of the corpus; none in a store of an earlier version.
    chat_template: sha256 (hex) of the template that wrote the corpus's conversations; None where it has none.
  """

  rows: int
  documents: int
  groups: int
  d_model: int
  layer: int
  rows_by_split: dict[str, int]
  notes: Sequence[str] = ()
  chat_template: str | None = None


class Supervised(NamedTuple):
  """Of `sft`.

  Attributes:
    injection_scale: α, the norm that injected vectors have.
    av_examples: examples that the AV has seen; 0 for a pair that was trained elsewhere.
    ar_examples: likewise of the AR.
    av_rows: rows that these examples are drawn from; 0 where it is not known.
    ar_rows: likewise of the AR.
    prompt_ids: every id of both prompts, as `Prompts.ids`; None of a workdir that was made before they were kept.
  """

  injection_scale: float
  av_examples: int
  ar_examples: int
  av_rows: int = 0
  ar_rows: int = 0
  prompt_ids: dict[str, list[int]] | None = None


class Reinforced(NamedTuple):
  """Of `rl`.

  Attributes:
    samples: explanations that were sampled.
    activations: activations that they explain; 0 where it is not known.
    rows: rows that these are drawn from; 0 where it is not known.
  """

  samples: int
  activations: int = 0
  rows: int = 0


Facts = TypeVar("Facts", Extracted, Supervised, Reinforced)


def read_facts(stage: Stage, kind: type[Facts]) -> Facts:
  """A finished stage's facts as a record. Raises NLAError where its manifest lacks one."""
  found = stage.facts

  # A folder that a person edited, or that another version closed.
  needed = [name for name in kind._fields if name not in kind._field_defaults]
  missing = [name for name in needed if name not in found]
  if missing:
    raise NLAError(
      f"the manifest of {stage.path} does not say {', '.join(missing)}: delete that folder and make the "
      "stage again"
    )
  return kind(**{name: found[name] for name in kind._fields if name in found})
