"""Extraction: documents through the target, residuals after block K into the store."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from nla_jax import files
from nla_jax.data.positions import HELD_OUT
from nla_jax.data.selection import Selection, select
from nla_jax.data.store.store import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.models import target
from nla_jax.parallel import distributed, sharding
from nla_jax.progress import Progress, say

_BUCKET = 32  # documents are padded to a multiple of this many tokens


def make_reader(config, architecture, dtype):
  """The compiled forward of extraction: `target.read` of (params, tokens, row, position)."""
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
  """(documents, tokens) of a forward over documents of at most `length` tokens."""
  bucket = -(-length // _BUCKET) * _BUCKET
  return sharding.round_up_rows(max(data.batch_tokens // bucket, 1)), bucket


def extract(config, pretrained, load_params: Callable, path: str, dtype) -> dict:
  """Writes the store at `path` and returns its facts: counts, norms, α. A store begun earlier is gone on with."""
  data, architecture = config.data, pretrained.architecture
  if not 0 <= config.layer < architecture.n_layers:
    raise NLAError(
      f"config.layer={config.layer}: {config.model} has blocks 0..{architecture.n_layers - 1}"
    )
  say("extract: reading and tokenising the corpus")
  corpus = select(config, pretrained.tokenizer, files.below(path, "tokens"))
  n, d, k = len(corpus.document), architecture.d_model, data.next_tokens
  arrays = {
    "activations": ((d,), "float32"),
    "document": ((), "int32"),
    "position": ((), "int32"),
    "norm": ((), "float32"),
  }
  if k:
    arrays |= {"next_tokens": ((k,), "int32"), "next_logprobs": ((k,), "float32")}
  process, processes = distributed.process()
  if process:
    distributed.wait("store begun")  # by the first process
  writer = StoreWriter(
    path,
    arrays,
    n,
    data.shard_rows,
    data.chunk_rows,
    made_from={
      "model": pretrained.model_hash,
      "tokenizer": pretrained.tokenizer_hash,
      "layer": config.layer,
      "corpus": config.corpus,
      "seed": config.seed,
    },
  )
  if not process:
    writer.write_documents(corpus.documents)
    distributed.wait("store begun")
  params = load_params(
    None if k else config.layer
  )  # what is above block K only where the teacher asks
  read = make_reader(config, architecture, dtype)
  done = writer.done
  distributed.wait("shards counted")
  progress = Progress("extract", n, "row", sum(len(writer.shard_range(shard)) for shard in done))
  for shard in range(writer.n_shards):
    if shard in done:
      continue
    rows = np.array(writer.shard_range(shard))
    columns = {
      name: np.empty((len(rows), *tail), dtype_) for name, (tail, dtype_) in arrays.items()
    }
    columns["document"], columns["position"] = corpus.document[rows], corpus.position[rows]
    for batch in _batches(corpus, rows, data):
      reading = read(params, sharding.shard_rows(batch.tokens), batch.row, batch.position)
      count = len(batch.place)
      columns["activations"][batch.place] = sharding.fetch(reading.activations)[:count]
      if k:
        columns["next_tokens"][batch.place] = sharding.fetch(reading.next_tokens)[:count]
        columns["next_logprobs"][batch.place] = sharding.fetch(reading.next_logprobs)[:count]
      progress.advance(count)
    if not np.isfinite(columns["activations"]).all():
      raise NLAError(
        f"the target gave activations that are not finite at layer {config.layer}; compute in float32 "
        "(--config.compute=float32) or choose another layer"
      )
    columns["norm"] = np.linalg.norm(columns["activations"], axis=1).astype(np.float32)
    if shard % processes == process:
      writer.write_shard(shard, columns)
    if distributed.preempted():
      raise distributed.PreemptedError(
        f"extract stopped after shard {shard + 1} of {writer.n_shards}"
      )
  progress.close()
  counts = {
    split: int(sum(corpus.documents[i].split == split for i in corpus.document))
    for split in (HELD_OUT, "av_sft", "ar_sft", "rl")
  }
  distributed.wait("shards written")
  if not process:
    writer.finish({"layer": config.layer, "rows": counts})
  return {
    "rows": n,
    "documents": len(corpus.documents),
    "rows_by_split": counts,
    "d_model": d,
    "layer": config.layer,
    "groups": len({document.group for document in corpus.documents}),
  }


class _Batch(NamedTuple):
  """tokens [batch, length]; row and position [slots] padded by repeats; place [count] index into the shard."""

  tokens: np.ndarray
  row: np.ndarray
  position: np.ndarray
  place: np.ndarray


def _batches(corpus: Selection, rows: np.ndarray, data) -> Iterator[_Batch]:
  """Documents of like length together, so that there are few shapes to compile and little padding."""
  documents = np.unique(corpus.document[rows])
  shape = lambda i: batch_shape(data, len(corpus.documents[i].tokens))
  for size, bucket in sorted({shape(i) for i in documents}, key=lambda one: one[1]):
    members = [i for i in documents if shape(i)[1] == bucket]
    for start in range(0, len(members), size):
      chosen = members[start : start + size]
      tokens = np.zeros((size, bucket), np.int32)
      where = {}
      for line, i in enumerate(chosen):
        ids = corpus.documents[i].tokens
        tokens[line, : len(ids)] = ids
        where[i] = line
      place = np.flatnonzero(np.isin(corpus.document[rows], chosen))
      row = np.array([where[i] for i in corpus.document[rows[place]]], np.int32)
      position = corpus.position[rows[place]].astype(np.int32)
      pad = size * data.positions_per_document - len(place)
      yield _Batch(tokens, np.pad(row, (0, pad)), np.pad(position, (0, pad)), place)
