"""The sidecar `{file}.nla_meta.yaml` of a parquet file with activations, prompts or explanations.

`docs/interchange.md` says what its keys mean.
"""

import dataclasses
from pathlib import Path
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.interop.pairs import sidecar as model

STAGES = ("base", "av_sft", "ar_sft", "rl")
_SUMMARY_KEYS = ("model", "max_tokens", "temperature", "instruction_prompt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSidecar:
  """What is known of a data file.

  Attributes:
    dataset_id: its name.
    stage: `base`, `av_sft`, `ar_sft` or `rl`.
    row_count: rows of the parquet file.
    base_model: the target that the activations come from.
    d_model: width of an activation.
    layer_index: K, 0-based; the activations are the output of block K.
    corpus: name of the texts.
    corpus_start: first document.
    corpus_length: documents, None for all.
    positions_per_doc: activations a document.
    tokens: marker ids; None in `base`.
    av_template: None in `base`.
    ar_template: None in `base`.
    api_summaries: the teacher: model, max_tokens, temperature, instruction_prompt; None without one.
    keep_debug_metadata: the rows hold the text before each position.
  """

  dataset_id: str
  stage: str
  row_count: int
  base_model: str
  d_model: int
  layer_index: int
  corpus: str
  corpus_start: int = 0
  corpus_length: int | None = None
  positions_per_doc: int | None = None
  tokens: model.Tokens | None = None
  av_template: str | None = None
  ar_template: str | None = None
  api_summaries: dict[str, Any] | None = None
  keep_debug_metadata: bool = True
  parent_datasets: tuple[str, ...] = ()
  created_at: str = dataclasses.field(default_factory=model._now)
  created_by: str = model.CREATED_BY
  git_commit: str | None = None


def dataset_sidecar_path(parquet: str | Path) -> Path:
  """Returns the sidecar's path: `{file}.nla_meta.yaml`, beside the file."""
  return Path(f"{parquet}{model.DATASET_SUFFIX}")


def write_dataset_sidecar(parquet: str | Path, sidecar: DatasetSidecar) -> Path:
  """Writes the sidecar of a parquet file and returns its path.

  Raises:
    NLAError: the stage is unknown, or `api_summaries` holds a key that the reference's readers reject.
  """
  if sidecar.stage not in STAGES:
    raise NLAError(f"a dataset's stage must be one of {', '.join(STAGES)}, got {sidecar.stage!r}")

  # The reference's readers reject unknown keys inside `extraction`, `tokens` and `api_summaries`; elsewhere ours pass.
  extra = set(sidecar.api_summaries or {}) - set(_SUMMARY_KEYS)
  if extra:
    raise NLAError(
      f"api_summaries may hold only {', '.join(_SUMMARY_KEYS)}, got also {', '.join(sorted(extra))}"
    )

  # They want the suffix ids null except in `ar_sft`.
  tokens = sidecar.tokens
  if tokens is not None and sidecar.stage != "ar_sft":
    tokens = dataclasses.replace(tokens, suffix_ids=None)

  # The files say actor and critic for AV and AR.
  templates = {"actor": sidecar.av_template, "critic": sidecar.ar_template}
  mapping = {
    "kind": "nla_dataset",
    "schema_version": 1,
    "dataset_id": sidecar.dataset_id,
    "stage": sidecar.stage,
    "row_count": sidecar.row_count,
    "keep_debug_metadata": sidecar.keep_debug_metadata,
    "parent_datasets": list(sidecar.parent_datasets),
    "created_at": sidecar.created_at,
    "created_by": sidecar.created_by,
    "git_commit": sidecar.git_commit,
    "extraction": {
      "base_model": sidecar.base_model,
      "d_model": sidecar.d_model,
      "layer_index": sidecar.layer_index,
      "norm": "none",
      "corpus": sidecar.corpus,
      "corpus_slice": {"start": sidecar.corpus_start, "length": sidecar.corpus_length},
      "positions_per_doc": sidecar.positions_per_doc,
    },
    **model._tokens_there(tokens),
  }
  if any(templates.values()):
    mapping["prompt_templates"] = {
      name: text for name, text in templates.items() if text is not None
    }
  if sidecar.api_summaries is not None:
    mapping["api_summaries"] = dict(sidecar.api_summaries)
  return model.write_yaml(dataset_sidecar_path(parquet), mapping)


def read_dataset_sidecar(parquet: str | Path) -> DatasetSidecar:
  """Reads the sidecar of a parquet file.

  Raises:
    NLAError: it is missing, no data file's, lacks a key that is needed, or its activations are not raw.
  """
  reader = model._Reader(dataset_sidecar_path(parquet))
  kind = reader.get("kind", kind=str)
  if kind != "nla_dataset":
    raise NLAError(
      f"{reader.path} is of kind {kind!r}, expected nla_dataset: give a parquet file with NLA data"
    )

  # The store keeps raw activations and their norms; a normalised activation has lost its norm.
  norm = reader.get("extraction.norm", kind=str)
  if norm != "none":
    raise NLAError(
      f"{reader.path} says its activations are normalised ({norm}), raw ones are needed: "
      "extract again"
    )

  # A base file holds no prompt, so it has no marker to be verified.
  prompted = reader.get("stage", kind=str) != "base"
  return DatasetSidecar(
    dataset_id=str(reader.get("dataset_id", required=False) or ""),
    stage=reader.get("stage", kind=str),
    row_count=reader.get("row_count", kind=int),
    base_model=reader.get("extraction.base_model", kind=str),
    d_model=reader.get("extraction.d_model", kind=int),
    layer_index=reader.get("extraction.layer_index", kind=int),
    corpus=str(reader.get("extraction.corpus", required=False) or ""),
    corpus_start=reader.get("extraction.corpus_slice.start", kind=int, required=False) or 0,
    corpus_length=reader.get("extraction.corpus_slice.length", kind=int, required=False),
    positions_per_doc=reader.get("extraction.positions_per_doc", kind=int, required=False),
    tokens=reader.tokens(required=prompted),
    av_template=reader.get(
      "prompt_templates.actor", "prompt_templates.av", kind=str, required=False
    ),
    ar_template=reader.get(
      "prompt_templates.critic", "prompt_templates.ar", kind=str, required=False
    ),
    api_summaries=reader.get("api_summaries", kind=dict, required=False),
    keep_debug_metadata=bool(reader.get("keep_debug_metadata", required=False)),
    parent_datasets=reader.names("parent_datasets"),
    created_at=str(reader.get("created_at", required=False) or ""),
    created_by=str(reader.get("created_by", required=False) or ""),
    git_commit=reader.get("git_commit", kind=str, required=False),
  )
