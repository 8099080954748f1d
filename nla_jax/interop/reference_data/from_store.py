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
from nla_jax.interop.base_models.tokenizers import load_tokenizer
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.reference_data.reader import Rows, rows_per_group
from nla_jax.interop.reference_data.sidecar import DatasetSidecar
from nla_jax.interop.reference_data.writer import DataWriter
from nla_jax.progress import Progress
from nla_jax.workdir import STORE, TEXTS

KINDS = ("base", "explained", "av_sft", "ar_sft", "rl")  # `explained` is of stage base there


@dataclasses.dataclass(frozen=True)
class Source:
  """A store with what belongs to it.

  Attributes:
    store: of activations.
    texts: {row: explanation}; empty without any.
    workdir: the folder that the store is in, None for a store that stands alone.
    model: the target's name.
    corpus: name of its texts.
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
  folder = Path(path).absolute()
  if (folder / STORE / layout.LAYOUT).exists():
    home, store = folder, Store(str(folder / STORE))
  else:
    home, store = (
      folder.parent.parent if folder.parts[-2:] == STORE.parts else None,
      Store(str(path)),
    )
  texts, config = {}, {}
  if home is not None and (home / TEXTS / layout.MANIFEST).exists():
    texts = explanations_lib.read_explanations(str(home / TEXTS))
  if home is not None and (home / "config.json").exists():
    config = json.loads((home / "config.json").read_text())
  origin, words = store.manifest.get("converted", {}), config.get("prompts", {})
  name = model or config.get("model") or origin.get("base_model")
  if not name:
    raise NLAError(
      f"{path} does not say of which model its activations are; name it with --model=NAME"
    )
  teacher = config.get("teacher", {})
  summaries = origin.get("api_summaries") or (
    {
      "model": teacher["provider"],
      "max_tokens": teacher.get("max_tokens"),
      "temperature": None,
      "instruction_prompt": None,
    }
    if teacher and texts
    else None
  )
  return Source(
    store,
    texts,
    home,
    name,
    str(origin.get("corpus") or store.manifest["made_from"].get("corpus") or ""),
    config.get("data", {}).get("positions_per_document") or origin.get("positions_per_doc"),
    (
      words.get("av") or origin.get("av_template") or prompts_lib.AV_TEMPLATE,
      words.get("ar") or origin.get("ar_template") or prompts_lib.AR_TEMPLATE,
      words.get("marker") or origin.get("marker"),
    ),
    summaries,
  )


def rows_of(source: Source, kind: str) -> np.ndarray:
  """Row indices that a file of this kind holds, [n] int64 ascending; empty where there are none."""
  store = source.store
  explained = np.array(sorted(source.texts), np.int64)
  if kind == "base":
    return np.arange(len(store))
  if kind == "explained":
    return explained
  if kind not in KINDS:
    raise NLAError(f"{kind!r} is no kind of parquet file; expected one of {', '.join(KINDS)}")
  if kind not in store.documents.splits:
    return np.zeros(0, np.int64)
  return store.rows(kind) if kind == "rl" else np.intersect1d(store.rows(kind), explained)


def to_parquet(source: Source, path: str | Path, kind: str, *, texts: bool = True) -> int:
  """Writes one file and its sidecar, in the store's order of rows.

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
  store, tokenizer, chosen = source.store, load_tokenizer(source.model), rows_of(source, kind)
  if not len(chosen):
    lacks = (
      "explanations" if kind in ("explained", "av_sft", "ar_sft") and not source.texts else "rows"
    )
    raise NLAError(
      f"the store {store.path} has no {lacks} for a file of kind {kind}; "
      + ("make them with `nla teach`" if lacks == "explanations" else "choose another kind")
    )
  stage = "base" if kind == "explained" else kind
  explained, texts = kind in ("explained", "av_sft", "ar_sft"), texts or stage == "base"
  av_template, ar_template, marker = source.templates
  tokens = None
  if stage != "base":
    tokens = sidecar.tokens_of(
      prompts_lib.make_prompts(tokenizer, av_template, ar_template, marker)
    )
  layer, group = store.manifest["layer"], rows_per_group(store.d)
  decode = lambda ids: tokenizer.decode(
    ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
  )
  progress = Progress(f"convert {kind}", len(chosen), "row")
  with DataWriter(
    path,
    stage,
    store.d,
    layer,
    explained=explained,
    texts=texts,
    av_template=av_template,
    ar_template=ar_template,
  ) as writer:
    for start in range(0, len(chosen), group):
      rows = chosen[start : start + group]
      documents = [store.documents[i] for i in store.read("document", rows).tolist()]
      counts = store.read("position", rows).astype(np.int64) + 1
      writer.write(
        Rows(
          [document.id for document in documents],
          counts,
          store.read("activations", rows).astype(np.float32),
          [decode(document.tokens[:n]) for document, n in zip(documents, counts.tolist())]
          if texts
          else None,
          [source.texts[row] for row in rows.tolist()] if explained else None,
        )
      )
      progress.advance(len(rows))
    progress.close()
    writer.finish(
      DatasetSidecar(
        dataset_id=Path(path).stem,
        stage=stage,
        row_count=len(chosen),
        base_model=source.model,
        d_model=store.d,
        layer_index=layer,
        corpus=source.corpus,
        positions_per_doc=source.positions_per_doc,
        tokens=tokens,
        av_template=av_template if stage != "base" else None,
        ar_template=ar_template if stage != "base" else None,
        api_summaries=source.api_summaries if explained else None,
        keep_debug_metadata=texts,
      )
    )
  return len(chosen)
