"""From the reference pipeline's parquet files to an activation store and its explanations.

The folder gets the sub-folders of a run's workdir. What the store has and the files lack: tokens (see
`nla_jax.interop.reference_data.documents`); groups (a document is its own); a held-out split, which is cut here before
anything else; the target's next-token predictions (so no readout teacher).

Files of stage av_sft, ar_sft and rl keep their split; held-out documents are then taken from those that are explained.
Base files are split as `docs/interchange.md` says. Rows keep the order of the files.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nla_jax.data import explanations as explanations_lib
from nla_jax.data.positions import (
  HELD_OUT,
  join_copies,
  split_groups,
  splits_needed,
)
from nla_jax.data.store.documents import StoredDocument
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.record import hash_tokenizer
from nla_jax.interop.base_models.tokenizers import load_tokenizer
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.reference_data.documents import Index, document_tokens, index_rows
from nla_jax.interop.reference_data.reader import DataFile, rows_per_group
from nla_jax.interop.reference_data.sidecar import DatasetSidecar
from nla_jax.interop.store_rows import open_store, say_copies, write_shards
from nla_jax.progress import say
from nla_jax.workdir import STORE, TEXTS


def to_store(
  paths: Sequence[str | Path],
  folder: str | Path,
  *,
  model: str | None = None,
  texts_from: Sequence[str | Path] = (),
  held_out: float = 0.1,
  seed: int = 42,
) -> dict:
  """Writes `folder/activations/store`, and `folder/explanations/texts` where the files explain.

  1. The files are opened and compared with each other and with the tokenizer.
  2. Documents are found, split and tokenised.
  3. The store is written, or resumed where an earlier conversion was interrupted.
  4. The explanations are written.

  Args:
    paths: parquet files of one target and layer, each with its sidecar.
    folder: as above.
    model: the target, for its tokenizer; the sidecars' base_model where None.
    texts_from: files that hold the texts of the same documents, where `paths` were written without.
    held_out: share of the documents that nothing is trained on; 0 for none.
    seed: of the splits.

  Returns:
    counts: rows, documents, rows_by_split, d_model, layer, groups, explanations, documents_realigned.

  Raises:
    NLAError: the files contradict each other, their sidecars, or the tokenizer; or cannot be read or written.
  """
  # 1. The files.
  files, extra = [DataFile(path) for path in paths], [DataFile(path) for path in texts_from]
  _refuse_other_targets(files[0], [*files[1:], *extra])
  side = files[0].sidecar
  tokenizer = load_tokenizer(model or side.base_model)
  _verify_markers(files, tokenizer)

  # 2. The documents.
  say(f"convert: reading the documents of {len(files)} file(s)")
  index = index_rows(files)
  documents, realigned = _documents(index, held_out, seed, [*files, *extra], tokenizer)

  # 3. The store.
  made_from = _made_from(files, tokenizer, held_out, seed)
  # A shard is as many rows as a row group of the files: that much is in memory at once.
  together, path = rows_per_group(side.d_model), Path(folder) / STORE
  writer = open_store(path, len(index.document), side.d_model, made_from, together)
  writer.write_documents(documents)
  write_shards(writer, functools.partial(_activations, files), index.document, index.position)
  splits = Counter(documents[i].split for i in index.document.tolist())
  rows_by_split = dict(sorted(splits.items()))
  origin = _origin(side, files, model or side.base_model, realigned)
  writer.finish({"layer": side.layer_index, "rows": rows_by_split, "converted": origin})

  # 4. The explanations.
  if index.texts:
    _write_explanations(Path(folder) / TEXTS, index, side)
  groups = {"groups": len({one.group for one in documents})}
  return _facts(index, side, rows_by_split, realigned) | groups


def _refuse_other_targets(first: DataFile, others: Sequence[DataFile]) -> None:
  """Raises NLAError where a file's activations are of another model, layer or width than the first file's."""
  for file in others:
    for name in ("base_model", "layer_index", "d_model"):
      found, wanted = getattr(file.sidecar, name), getattr(first.sidecar, name)
      if found != wanted:
        raise NLAError(
          f"{file.path} has {name} {found!r}, {first.path} has "
          f"{wanted!r}: one store holds one target's layer, convert them apart"
        )


def _verify_markers(files: Sequence[DataFile], tokenizer) -> None:
  """Raises NLAError where the marker or its neighbours are other ids for the live tokenizer than a sidecar says."""
  for file in files:
    side = file.sidecar
    if side.tokens is not None:
      sidecar.verify_tokens(
        side.tokens, side.av_template, side.ar_template, tokenizer, f"the sidecar of {file.path}"
      )


def _documents(
  index: Index, held_out: float, seed: int, sources: Sequence[DataFile], tokenizer
) -> tuple[list[StoredDocument], int]:
  """Returns the documents of the store, with copies in one split, and how many had to be pieced together."""
  tokens, realigned = _tokens(index, sources, tokenizer)
  groups, copies = join_copies(index.ids, tokens, splits_needed(held_out))
  splits = _splits(index, groups, held_out, seed)

  documents = [
    StoredDocument(*fields) for fields in zip(index.ids, groups, splits, tokens, strict=True)
  ]
  say_copies(documents, index.document, index.position, copies, len(index.ids))
  return documents, realigned


def _tokens(index: Index, sources: Sequence[DataFile], tokenizer) -> tuple[list[np.ndarray], int]:
  """Returns the tokens of each document, and how many documents had to be pieced together."""
  tokens, realigned = document_tokens(index, sources, tokenizer)
  if realigned:
    say(
      f"convert: {realigned} of {len(tokens)} documents do not tokenise to the length that the file says; their "
      "tokens are pieced together from their rows' texts, activations and positions are the file's"
    )
  return tokens, realigned


def _made_from(
  files: Sequence[DataFile], tokenizer, held_out: float, seed: int
) -> dict[str, object]:
  """Returns all that decides what the store holds, so that a store of other files is not resumed."""
  side = files[0].sidecar
  return {
    "model": side.base_model,
    "tokenizer": hash_tokenizer(tokenizer),
    "layer": side.layer_index,
    "corpus": side.corpus,
    "seed": seed,
    "held_out": held_out,
    "parquet": [file.fingerprint for file in files],
  }


def _facts(index: Index, side: DatasetSidecar, rows_by_split: dict, realigned: int) -> dict:
  return {
    "rows": len(index.document),
    "documents": len(index.ids),
    "d_model": side.d_model,
    "layer": side.layer_index,
    "rows_by_split": rows_by_split,
    "explanations": len(index.texts),
    "documents_realigned": realigned,
  }


def _origin(side: DatasetSidecar, files: Sequence[DataFile], model: str, realigned: int) -> dict:
  """Returns what the files say and the store has no place for, to be kept in its manifest."""
  return {
    "base_model": model,
    "corpus": side.corpus,
    "files": [file.path.name for file in files],
    "positions_per_doc": side.positions_per_doc,
    "api_summaries": side.api_summaries,
    "av_template": side.av_template,
    "ar_template": side.ar_template,
    "marker": None if side.tokens is None else side.tokens.injection_char,
    "documents_realigned": realigned,
  }


def _write_explanations(path: Path, index: Index, side: DatasetSidecar) -> None:
  rows = sorted(index.texts)
  texts = [index.texts[row] for row in rows]
  fields = {"api_summaries": side.api_summaries}
  explanations_lib.write_explanations(str(path), np.array(rows, np.int64), texts, fields)


def _splits(index: Index, groups: Sequence[str], held_out: float, seed: int) -> list[str]:
  """Returns the split of each document.

  Args:
    index: of the rows.
    groups: of each document. The files know none, so it is the document, or the first of its copies.
    held_out: share of the groups.
    seed: of the splits.
  """
  # Base files say no split: all documents are split here.
  if set(index.stages) == {"base"}:
    found = split_groups(groups, seed=seed, held_out=held_out)
    return [found[name] for name in groups]
  if "base" in index.stages:
    raise NLAError(
      "base files were given together with files of a split, so it is unknown which documents are whose; "
      "convert base files alone, and give them with --texts where only their texts are needed"
    )

  # Held out are only documents of which every row is explained, so that evaluation has a teacher's text of each.
  rows = np.bincount(index.document, minlength=len(index.ids))
  explained = np.bincount(index.document[sorted(index.texts)], minlength=len(index.ids))
  lacking = {name for name, all_ in zip(groups, explained == rows, strict=True) if not all_}
  able = [name for name in groups if name not in lacking] or groups
  cut = {}
  if held_out:
    cut = split_groups(able, seed=seed, held_out=held_out, fractions=(("rest", 1.0),))

  return [
    HELD_OUT if cut.get(name) == HELD_OUT else stage
    for name, stage in zip(groups, index.stages, strict=True)
  ]


def _activations(files: Sequence[DataFile], start: int) -> Iterator[np.ndarray]:
  """Yields the activations of all files from row `start` on, in batches [n, d]."""
  for file in files:
    if start < len(file):
      for _, rows in file.read(start, activations=True):
        yield rows.activations
    start = max(start - len(file), 0)
