"""From an activation store and its explanations to the reference pipeline's parquet files.

What the files have no place for: groups, and the held-out split. Held-out rows are only in `base` and `explained`, so
whoever splits those anew, here or there, splits by document: paragraphs of one article may then end on both sides.
`n_raw_tokens` is the position + 1; the text is the decoded prefix, special tokens left out.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.autoencoder import prompts as prompts_lib
from nla_jax.data import explanations as explanations_lib
from nla_jax.data.store import layout
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.files import here
from nla_jax.interop.base_models.tokenizers import load_tokenizer
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.reference_data.reader import Rows, rows_per_group
from nla_jax.interop.reference_data.sidecar import DatasetSidecar
from nla_jax.interop.reference_data.writer import DataWriter
from nla_jax.progress import Progress
from nla_jax.workdir import CONFIG, STORE, TEXTS

KINDS = ("base", "explained", "av_sft", "ar_sft", "rl")  # `explained` is of stage base there
_WITH_TEXTS = ("explained", "av_sft", "ar_sft")  # kinds whose every row has an explanation


@dataclasses.dataclass(frozen=True)
class Source:
  """A store with what belongs to it.

  Attributes:
    store: of activations.
    texts: {row: explanation}; empty without any.
    workdir: the folder that the store is in, None for a store that stands alone.
    model: the target's name.
    corpus: name of the texts that it read.
    positions_per_doc: rows a document.
    templates: (AV's, AR's, marker or None).
    api_summaries: of the teacher, None where there is none or nothing is known.
  """

  store: Store
  texts: dict[int, str]
  workdir: Path | None
  model: str
  corpus: str
  positions_per_doc: int | None
  templates: tuple[str, str, str | None]
  api_summaries: dict[str, Any] | None


def open_source(path: str | Path, model: str | None = None) -> Source:
  """Opens a workdir of `nla run`, a folder converted to, or a store itself.

  Args:
    path: as above.
    model: the target's name, where neither a config beside the store nor a conversion says it.

  Raises:
    NLAError: there is no finished store, or nothing says of which model it is.
  """
  path = here(path)
  folder = Path(path).absolute()
  if (folder / STORE / layout.LAYOUT).exists():
    home, store = folder, Store(str(folder / STORE))
  else:
    # A store itself; the workdir is above it where the folders' names say so.
    home = folder.parent.parent if folder.parts[-2:] == STORE.parts else None
    store = Store(str(path))

  texts, config = {}, {}
  if home is not None and (home / TEXTS / layout.MANIFEST).exists():
    texts = explanations_lib.read_explanations(str(home / TEXTS))
  if home is not None and (home / CONFIG).exists():
    config = json.loads((home / CONFIG).read_text())

  # The config of a run says most; what a conversion kept of the files that it read comes next.
  origin, prompts = store.manifest.get("converted", {}), config.get("prompts", {})
  name = model or config.get("model") or origin.get("base_model")
  if not name:
    raise NLAError(
      f"{path} does not say of which model its activations are; name it with --model=NAME"
    )
  av_template = prompts.get("av") or origin.get("av_template") or prompts_lib.AV_TEMPLATE
  ar_template = prompts.get("ar") or origin.get("ar_template") or prompts_lib.AR_TEMPLATE
  marker = prompts.get("marker") or origin.get("marker")
  per_document = config.get("data", {}).get("positions_per_document")
  return Source(
    store=store,
    texts=texts,
    workdir=home,
    model=name,
    corpus=str(origin.get("corpus") or store.manifest["made_from"].get("corpus") or ""),
    positions_per_doc=per_document or origin.get("positions_per_doc"),
    templates=(av_template, ar_template, marker),
    api_summaries=origin.get("api_summaries") or (_summaries(config) if texts else None),
  )


def _summaries(config: dict) -> dict[str, Any] | None:
  """Returns what a sidecar says of the teacher, None where the config says nothing."""
  teacher = config.get("teacher", {})
  if not teacher:
    return None
  return {
    "model": teacher["provider"],
    "max_tokens": teacher.get("max_tokens"),
    "temperature": None,
    "instruction_prompt": None,
  }


def rows_of(source: Source, kind: str) -> np.ndarray:
  """Returns the row indices that a file of this kind holds, [n] int64 ascending; empty where there are none.

  Raises:
    NLAError: there is no such kind.
  """
  store = source.store
  explained = np.array(sorted(source.texts), np.int64)
  if kind == "base":
    return np.arange(len(store))
  if kind == "explained":
    return explained
  if kind not in KINDS:
    raise NLAError(f"{kind!r} is no kind of parquet file; expected one of {', '.join(KINDS)}")

  # The kinds that are left have the names of splits.
  if kind not in store.documents.splits:
    return np.zeros(0, np.int64)
  return store.rows(kind) if kind == "rl" else np.intersect1d(store.rows(kind), explained)


def to_parquet(source: Source, path: str | Path, kind: str, *, texts: bool = True) -> int:
  """Writes one file and its sidecar, in the store's order of rows.

  1. The rows of the kind are chosen, and the sidecar is filled in.
  2. Rows are written, a row group at a time; then the sidecar.

  Args:
    source: see `open_source`.
    path: of the file; must not exist.
    kind: `base` (all rows), `explained` (all with an explanation), or a split: `av_sft` and `ar_sft` (its rows with an
      explanation), `rl` (its rows).
    texts: write the text up to each position; always in `base` and `explained`.

  Returns:
    the number of rows.

  Raises:
    NLAError: no row is of this kind, or the file is there or cannot be written.
  """
  # 1. The rows and the sidecar: a wrong model or marker is told before the file is begun.
  tokenizer = load_tokenizer(source.model)
  chosen = rows_of(source, kind)
  if not len(chosen):
    _raise_nothing(source, kind)
  stage = "base" if kind == "explained" else kind
  explained, texts = kind in _WITH_TEXTS, texts or stage == "base"
  side = _sidecar(source, Path(path).stem, stage, tokenizer, explained=explained, texts=texts)

  # 2. The file.
  av_template, ar_template, _ = source.templates
  with DataWriter(
    path,
    stage,
    side.d_model,
    side.layer_index,
    explained=explained,
    texts=texts,
    av_template=av_template,
    ar_template=ar_template,
  ) as writer:
    progress = Progress(f"convert {kind}", len(chosen), "row")
    group = rows_per_group(side.d_model)
    for start in range(0, len(chosen), group):
      rows = chosen[start : start + group]
      writer.write(_read_rows(source, rows, tokenizer if texts else None, explained))
      progress.advance(len(rows))
    progress.close()
    writer.finish(side)
  return len(chosen)


def _raise_nothing(source: Source, kind: str) -> None:
  """Raises the NLAError of a file that would have no row: it lacks explanations, or rows of a split."""
  if kind in _WITH_TEXTS and not source.texts:
    lacks, advice = "explanations", "make them with `nla teach`"
  else:
    lacks, advice = "rows", "choose another kind"
  raise NLAError(
    f"the store {source.store.path} has no {lacks} for a file of kind {kind}; {advice}"
  )


def _read_rows(source: Source, rows: np.ndarray, tokenizer, explained: bool) -> Rows:
  """Reads rows of the store; with texts where there is a `tokenizer` to decode them."""
  store = source.store
  documents = [store.documents[i] for i in store.read("document", rows).tolist()]
  counts = store.read("position", rows).astype(np.int64) + 1  # tokens up to and with the position

  texts = explanations = None
  if tokenizer is not None:
    prefixes = zip(documents, counts.tolist(), strict=True)
    texts = [_decode(tokenizer, document.tokens[:n]) for document, n in prefixes]
  if explained:
    explanations = [source.texts[row] for row in rows.tolist()]

  activations = store.read("activations", rows).astype(np.float32)
  ids = [document.id for document in documents]
  return Rows(ids, counts, activations, texts, explanations)


def _decode(tokenizer, ids: np.ndarray) -> str:
  # Cleaning up would delete spaces before commas, and the text would no longer give these tokens.
  return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _sidecar(
  source: Source, dataset_id: str, stage: str, tokenizer, *, explained: bool, texts: bool
) -> DatasetSidecar:
  """Returns the sidecar of a file of a stage; the writer fills in the number of rows."""
  # A base file holds no prompt, so its sidecar names neither marker nor templates.
  av_template = ar_template = tokens = None
  if stage != "base":
    av_template, ar_template, marker = source.templates
    prompts = prompts_lib.make_prompts(tokenizer, av_template, ar_template, marker)
    tokens = sidecar.tokens_of(prompts)

  return DatasetSidecar(
    dataset_id=dataset_id,
    stage=stage,
    row_count=0,
    base_model=source.model,
    d_model=source.store.d,
    layer_index=source.store.manifest["layer"],
    corpus=source.corpus,
    positions_per_doc=source.positions_per_doc,
    tokens=tokens,
    av_template=av_template,
    ar_template=ar_template,
    api_summaries=source.api_summaries if explained else None,
    keep_debug_metadata=texts,
  )
