"""From the reference pipeline's parquet files to an activation store and its explanations.

The folder gets the sub-folders of a run's workdir. What the store has and the files lack: tokens (see
`parquet_documents`); groups (a document is its own); a held-out split, which is cut here before anything else; the
target's next-token predictions (so no readout teacher).

Files of stage av_sft, ar_sft and rl keep their split; held-out documents are then taken from those that are explained.
Base files are split by the contract's generator. Rows keep the order of the files.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nla_jax.data import explanations as explanations_lib
from nla_jax.data.positions import HELD_OUT, split_groups
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.record import hash_tokenizer
from nla_jax.interop.base_models.tokenizers import load_tokenizer
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.reference_data.documents import Index, document_tokens, index_rows
from nla_jax.interop.reference_data.reader import DataFile, rows_per_group
from nla_jax.progress import Progress, say
from nla_jax.workdir import STORE, TEXTS

_CHUNK = 64


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

  A conversion that was stopped goes on where it was when it is called again.

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
  files, extra = [DataFile(path) for path in paths], [DataFile(path) for path in texts_from]
  side = files[0].sidecar
  for file in (*files[1:], *extra):
    for name in ("base_model", "layer_index", "d_model"):
      if getattr(file.sidecar, name) != getattr(side, name):
        raise NLAError(
          f"{file.path} has {name} {getattr(file.sidecar, name)!r}, {files[0].path} has "
          f"{getattr(side, name)!r}: one store holds one target's layer, convert them apart"
        )
  tokenizer = load_tokenizer(model or side.base_model)
  for file in files:
    if file.sidecar.tokens is not None:
      sidecar.verify_tokens(
        file.sidecar.tokens,
        file.sidecar.av_template,
        file.sidecar.ar_template,
        tokenizer,
        f"the sidecar of {file.path}",
      )
  say(f"convert: reading the documents of {len(files)} file(s)")
  index = index_rows(files)
  splits = _splits(index, held_out, seed)
  tokens, realigned = document_tokens(index, [*files, *extra], tokenizer)
  if realigned:
    say(
      f"convert: {realigned} of {len(tokens)} documents do not tokenise to the length that the file says; their "
      "tokens are pieced together from their rows' texts, activations and positions are the file's"
    )
  n, d = len(index.document), side.d_model
  shard_rows = -(-rows_per_group(d) // _CHUNK) * _CHUNK
  writer = StoreWriter(
    str(Path(folder) / STORE),
    {
      "activations": ((d,), "float32"),
      "document": ((), "int32"),
      "position": ((), "int32"),
      "norm": ((), "float32"),
    },
    n,
    shard_rows,
    _CHUNK,
    made_from={
      "model": side.base_model,
      "tokenizer": hash_tokenizer(tokenizer),
      "layer": side.layer_index,
      "corpus": side.corpus,
      "seed": seed,
      "held_out": held_out,
      "parquet": [file.fingerprint for file in files],
    },
  )
  writer.write_documents(
    [
      StoredDocument(name, name, split, ids)
      for name, split, ids in zip(index.ids, splits, tokens, strict=True)
    ]
  )
  _write_shards(writer, files, index, d)
  counts = Counter(splits[i] for i in index.document.tolist())
  facts = {
    "rows": n,
    "documents": len(index.ids),
    "groups": len(index.ids),
    "d_model": d,
    "layer": side.layer_index,
    "rows_by_split": dict(sorted(counts.items())),
    "explanations": len(index.texts),
    "documents_realigned": realigned,
  }
  origin = {
    "base_model": model or side.base_model,
    "corpus": side.corpus,
    "files": [file.path.name for file in files],
    "positions_per_doc": side.positions_per_doc,
    "api_summaries": side.api_summaries,
    "av_template": side.av_template,
    "ar_template": side.ar_template,
    "marker": None if side.tokens is None else side.tokens.injection_char,
    "documents_realigned": realigned,
  }
  writer.finish({"layer": side.layer_index, "rows": facts["rows_by_split"], "converted": origin})
  if index.texts:
    rows = np.array(sorted(index.texts), np.int64)
    explanations_lib.write_explanations(
      str(Path(folder) / TEXTS),
      rows,
      [index.texts[row] for row in rows.tolist()],
      {"api_summaries": side.api_summaries},
    )
  return facts


def _splits(index: Index, held_out: float, seed: int) -> list[str]:
  """The split of each document."""
  if set(index.stages) == {"base"}:
    found = split_groups(index.ids, seed=seed, held_out=held_out)
    return [found[name] for name in index.ids]
  if "base" in index.stages:
    raise NLAError(
      "base files were given together with files of a split, so it is unknown which documents are whose; "
      "convert base files alone, and give them with --texts where only their texts are needed"
    )
  rows = np.bincount(index.document, minlength=len(index.ids))
  explained = np.bincount(index.document[sorted(index.texts)], minlength=len(index.ids))
  able = [
    name for name, whole in zip(index.ids, explained == rows, strict=True) if whole
  ] or index.ids
  cut = (
    split_groups(able, seed=seed, held_out=held_out, fractions=(("rest", 1.0),)) if held_out else {}
  )
  return [
    HELD_OUT if cut.get(name) == HELD_OUT else stage
    for name, stage in zip(index.ids, index.stages, strict=True)
  ]


def _activations(files: Sequence[DataFile], start: int) -> Iterator[np.ndarray]:
  """Activations of all files from row `start` on, in batches [n, d]."""
  for file in files:
    if start < len(file):
      for _, rows in file.read(start, activations=True):
        yield rows.activations
    start = max(start - len(file), 0)


def _write_shards(writer: StoreWriter, files: Sequence[DataFile], index: Index, d: int) -> None:
  missing = sorted(set(range(writer.n_shards)) - writer.done)
  if not missing:
    return
  n = len(index.document)
  start = writer.shard_range(missing[0]).start
  progress = Progress("convert", n, "row", start)
  batches, left = _activations(files, start), np.zeros((0, d), np.float32)
  for shard in range(missing[0], writer.n_shards):
    rows = writer.shard_range(shard)
    parts, have = [left], len(left)
    while have < len(rows):
      parts.append(next(batches))
      have += len(parts[-1])
    joined = np.concatenate(parts)
    vectors, left = joined[: len(rows)], joined[len(rows) :].copy()
    if shard in missing:
      part = slice(rows.start, rows.stop)
      writer.write_shard(
        shard,
        {
          "activations": vectors,
          "document": index.document[part],
          "position": index.position[part],
          "norm": np.linalg.norm(vectors, axis=1).astype(np.float32),
        },
      )
    progress.advance(len(rows))
  progress.close()
