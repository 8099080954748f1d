"""Extraction: documents go through the target, and the residuals after block K into the store."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from nla_jax import files
from nla_jax.autoencoder.chat import template_hash
from nla_jax.autoencoder.tokens import refuse_beyond
from nla_jax.data.left_out import notes, part_notes
from nla_jax.data.positions import SPLITS
from nla_jax.data.selection import Selection, select
from nla_jax.data.store import rounding
from nla_jax.data.store.writer import ArraySpecs, StoreWriter
from nla_jax.errors import NLAError
from nla_jax.models import target
from nla_jax.parallel import distributed, sharding
from nla_jax.progress import Progress, say

_BUCKET = 32  # documents are padded to a multiple of this many tokens


def make_reader(config, architecture, dtype):
  """Returns the compiled forward of extraction: `target.read` of (params, tokens, row, position)."""
  return jax.jit(
    functools.partial(
      target.read,
      architecture=architecture,
      layer=config.layer,
      top_k=config.data.next_tokens,
      dtype=dtype,
    )
  )


def batch_shape(data, length: int) -> tuple[int, int]:
  """Returns (documents, tokens) of a forward over documents of at most `length` tokens."""
  bucket = -(-length // _BUCKET) * _BUCKET
  return sharding.round_up_rows(max(data.batch_tokens // bucket, 1)), bucket


def extract(config, pretrained, load_params: Callable, path: str, dtype) -> dict:
  """Writes the activation store at `path`. Resumes a store that was interrupted.

  1. The corpus is read and tokenised, positions and splits are chosen.
  2. The store is opened; the first process writes its documents.
  3. Each shard that is missing is read from the target and written.
  4. The manifest closes the store.

  Args:
    config: the run's.
    pretrained: the target's architecture, tokenizer and hashes.
    load_params: gives the target's parameters up to a block, or all of them for None.
    path: folder or KvStore URL.
    dtype: that the target computes in.

  Returns:
    facts for the stage's manifest: rows, documents, rows_by_split, d_model, layer, groups, left_out, notes,
    chat_template; of several sources, what each gave as parts.

  Raises:
    NLAError: there is no such layer, the corpus cannot be used, the store cannot be written, or an activation is not
      finite.
    PreemptedError: the process was asked to stop; what is written stays.
  """
  data, architecture = config.data, pretrained.architecture
  if not 0 <= config.layer < architecture.n_layers:
    raise NLAError(
      f"config.layer={config.layer}: {config.model} has blocks 0..{architecture.n_layers - 1}"
    )

  rounding.check(data.rows, architecture.d_model)

  # 1. The corpus.
  say("extract: reading and tokenising the corpus")
  corpus = select(config, pretrained.tokenizer, files.below(path, "tokens"))
  said = notes(corpus.counts)
  for note in [*part_notes(corpus.parts), *said]:
    say(f"extract: {note}")

  # 2. The store.
  arrays = _arrays(architecture.d_model, data.rows, data.next_tokens)
  writer = _open_store(path, arrays, corpus, config, pretrained)

  # 3. The shards. What is above block K is loaded only where the teacher asks for next tokens.
  params = load_params(None if data.next_tokens else config.layer)
  read = functools.partial(make_reader(config, architecture, dtype), params)
  _write_shards(writer, arrays, corpus, read, config)

  # 4. The manifest.
  rows_by_split = _rows_by_split(corpus)
  distributed.wait("shards written")
  if distributed.is_first():
    writer.finish({"layer": config.layer, "rows": rows_by_split})
  return {
    "rows_by_split": rows_by_split,
    "d_model": architecture.d_model,
    "layer": config.layer,
    "chat_template": template_hash(pretrained.tokenizer) if corpus.conversations else None,
    **_facts(corpus, said),
  }


def _facts(corpus: Selection, said: list[str]) -> dict:
  """What a selection says of itself."""
  return {
    "rows": len(corpus.document),
    "documents": len(corpus.documents),
    "groups": len({document.group for document in corpus.documents}),
    "left_out": corpus.counts._asdict(),
    "notes": said,
    **_parts(corpus),
  }


def _parts(corpus: Selection) -> dict:
  """What each source gave, where there are several."""
  parts = {name: part._asdict() for name, part in corpus.parts.items()}
  return {"parts": parts} if parts else {}


def _arrays(d_model: int, kept_as: str, next_tokens: int) -> ArraySpecs:
  """The arrays of the store, and the shape and dtype of a row of each."""
  arrays = {
    **rounding.array_specs(kept_as, d_model),
    "document": ((), "int32"),
    "position": ((), "int32"),
    "norm": ((), "float32"),
  }
  if next_tokens:
    arrays["next_tokens"] = ((next_tokens,), "int32")
    arrays["next_logprobs"] = ((next_tokens,), "float32")
  return arrays


def _open_store(
  path: str, arrays: ArraySpecs, corpus: Selection, config, pretrained
) -> StoreWriter:
  """Opens the store in every process; the first one makes it and writes the documents."""
  # The others find the layout that the first has written, and do not write it at the same time.
  if not distributed.is_first():
    distributed.wait("store begun")

  made_from = {
    "model": pretrained.model_hash,
    "tokenizer": pretrained.tokenizer_hash,
    "layer": config.layer,
    "corpus": config.corpus,
    "seed": config.seed,
  }
  data = config.data
  # An id without a row in the embedding would be read as the last one, without a word.
  largest = (one.tokens.max() for one in corpus.documents if len(one.tokens))
  refuse_beyond(largest, pretrained.architecture.vocab_size, "the corpus")
  writer = StoreWriter(
    path, arrays, len(corpus.document), data.shard_rows, data.chunk_rows, made_from
  )

  if distributed.is_first():
    writer.write_documents(corpus.documents)
    distributed.wait("store begun")
  return writer


def _write_shards(
  writer: StoreWriter, arrays: ArraySpecs, corpus: Selection, read: Callable, config
) -> None:
  """Computes every shard that is missing. All processes compute together; each writes its share of the shards."""
  process, processes = distributed.process()
  done = writer.done
  # Before anyone writes, or a process would count a shard of another as done and not take part in computing it.
  distributed.wait("shards counted")

  rows_done = sum(len(writer.shard_range(shard)) for shard in done)
  progress = Progress("extract", len(corpus.document), "row", rows_done)
  for shard in range(writer.n_shards):
    if shard in done:
      continue
    columns = _compute_shard(writer.shard_range(shard), arrays, corpus, read, config, progress)
    if shard % processes == process:
      writer.write_shard(shard, columns)
  progress.close()


def _compute_shard(
  shard: range,
  arrays: ArraySpecs,
  corpus: Selection,
  read: Callable,
  config,
  progress: Progress,
) -> dict[str, np.ndarray]:
  """Returns {array: [rows of the shard, …]}.

  Raises:
    NLAError: an activation is not finite.
    PreemptedError: the process was asked to stop.
  """
  rows = np.array(shard)
  columns = {
    name: np.empty((len(rows), *row_shape), dtype)
    for name, (row_shape, dtype) in arrays.items()
    if name != rounding.SCALES
  }
  # As the target gives them; they are rounded when all are there.
  columns["activations"] = columns["activations"].astype(np.float32)
  columns["document"], columns["position"] = corpus.document[rows], corpus.position[rows]

  for batch in _batches(corpus, rows, config.data):
    # Asked at every batch: on a slow machine a shard takes longer than a cluster waits.
    if distributed.preempted():
      raise distributed.PreemptedError("extract stopped; the shards that are written are kept")
    reading = read(sharding.shard_rows(batch.tokens), batch.row, batch.position)

    # The slots after the first `count` only fill the compiled shape.
    count = len(batch.place)
    for name in ("activations", "next_tokens", "next_logprobs"):
      if name in columns:
        columns[name][batch.place] = sharding.fetch(getattr(reading, name))[:count]
    progress.advance(count)

  if not np.isfinite(columns["activations"]).all():
    raise NLAError(
      f"the target gave activations that are not finite at layer {config.layer}; compute in float32 "
      "(--config.compute=float32) or choose another layer"
    )
  columns["norm"] = np.linalg.norm(columns["activations"], axis=1).astype(np.float32)
  return columns | rounding.rounded(columns["activations"], config.data.rows)


def _rows_by_split(corpus: Selection) -> dict[str, int]:
  counts = Counter(corpus.documents[i].split for i in corpus.document.tolist())
  return {split: counts[split] for split in SPLITS}


class _Batch(NamedTuple):
  """Documents of one forward, and the rows of the shard that are read from it.

  Attributes:
    tokens: [batch, length] int32.
    row: [slots] int32, line of `tokens`; slots after the last are padded by zeros.
    position: [slots] int32, likewise.
    place: [count] int, index into the shard of the first `count` slots.
  """

  tokens: np.ndarray
  row: np.ndarray
  position: np.ndarray
  place: np.ndarray


def _batches(corpus: Selection, rows: np.ndarray, data) -> Iterator[_Batch]:
  """Yields documents of like length together, so that there are few shapes to compile and little padding."""
  by_shape: dict[tuple[int, int], list[int]] = {}
  for i in np.unique(corpus.document[rows]):
    shape = batch_shape(data, len(corpus.documents[i].tokens))
    by_shape.setdefault(shape, []).append(i)

  for (size, bucket), members in sorted(by_shape.items(), key=lambda item: item[0][1]):
    for start in range(0, len(members), size):
      yield _batch(corpus, rows, members[start : start + size], (size, bucket), data)


def _batch(
  corpus: Selection, rows: np.ndarray, chosen: list[int], shape: tuple[int, int], data
) -> _Batch:
  tokens = np.zeros(shape, np.int32)
  line_of = {}
  for line, i in enumerate(chosen):
    ids = corpus.documents[i].tokens
    tokens[line, : len(ids)] = ids
    line_of[i] = line

  place = np.flatnonzero(np.isin(corpus.document[rows], chosen))
  row = np.array([line_of[i] for i in corpus.document[rows[place]]], np.int32)
  position = corpus.position[rows[place]].astype(np.int32)

  # Every batch of a shape has as many slots, whatever its documents give: one compilation serves all.
  padding = (0, shape[0] * data.positions_per_document - len(place))
  return _Batch(tokens, np.pad(row, padding), np.pad(position, padding), place)
