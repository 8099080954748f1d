"""The shards of a store that is extracted: which process computes which, and from which batches of documents.

Each process computes shards of its own, on its own devices, where these can hold the target: nothing of a shard then
goes between processes. Where the parameters lie across them, all compute every shard together.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax.data.selected import Rows, Selection
from nla_jax.data.store import rounding
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed, sharding
from nla_jax.parallel.mesh import own_mesh_of
from nla_jax.progress import Progress

_BUCKET = 32  # documents are padded to a multiple of this many tokens


def batch_shape(data, length: int) -> tuple[int, int]:
  """Returns (documents, tokens) of a forward over documents of at most `length` tokens."""
  bucket = -(-length // _BUCKET) * _BUCKET
  return sharding.round_up_rows(max(data.batch_tokens // bucket, 1)), bucket


def write_shards(writer: StoreWriter, corpus: Selection, read: Callable, config, own: bool) -> None:
  """Computes and writes every shard that is missing.

  Args:
    writer: of the store.
    corpus: that is extracted.
    read: the compiled forward, with its parameters.
    config: the run's.
    own: whether each process computes its shards on its own devices, where the parameters then are; else all compute
      every shard, on the mesh in context, and each writes its share.

  Raises:
    NLAError: an activation is not finite, or a shard cannot be written.
    PreemptedError: the process was asked to stop.
  """
  process, processes = distributed.process()
  done = writer.done
  # Before anyone writes, or a process would count a shard of another as done and leave it out of the turns.
  distributed.wait("shards counted")
  missing = [shard for shard in range(writer.n_shards) if shard not in done]

  rows_done = sum(len(writer.shard_range(shard)) for shard in done)
  progress = Progress("extract", len(corpus), "row", rows_done)
  shards = _Shards(writer, corpus, read, config, progress)
  for begin in range(0, len(missing), processes):
    turn = missing[begin : begin + processes]
    if own:
      # A turn together: nobody waits for ever for one that met a mistake, nor for long where a cluster asks to stop,
      # since all then go on to the batch at which the one that is ahead is.
      take = functools.partial(shards.take_own, turn, process)
      distributed.together("extract its shard", take)
      continue
    for i, shard in enumerate(turn):
      columns = shards.compute(shard)
      if i == process:
        writer.write_shard(shard, columns)
  progress.close()


@dataclasses.dataclass
class _Shards:
  """What the shards of a store are computed from; fields as of `write_shards`."""

  writer: StoreWriter
  corpus: Selection
  read: Callable
  config: Any
  progress: Progress

  def take_own(self, turn: Sequence[int], process: int) -> None:
    """Computes and writes one of some shards that as many processes take at once; the last turn may lack some."""
    with own_mesh_of(self.config.mesh):
      batches, asked = [self._count_batches(shard) for shard in turn], 0
      if process < len(turn):
        self.writer.write_shard(turn[process], self.compute(turn[process]))
        asked = batches[process]

    # As often as the one with most batches, since all must count the calls alike.
    for _ in range(asked, max(batches)):
      _refuse_to_go_on()
    others = [shard for i, shard in enumerate(turn) if i != process]
    self.progress.advance(sum(len(self.writer.shard_range(shard)) for shard in others))

  def compute(self, shard: int) -> dict[str, np.ndarray]:
    """Returns {array: [rows of the shard, …]}.

    Raises:
      NLAError: an activation is not finite.
      PreemptedError: the process was asked to stop.
    """
    data, rows = self.config.data, self.corpus.rows(self.writer.shard_range(shard))
    columns = {
      name: np.empty((len(rows.document), *row_shape), dtype)
      for name, (row_shape, dtype) in self.writer.arrays.items()
      if name != rounding.SCALES
    }
    # As the target gives them; they are rounded when all are there.
    columns["activations"] = columns["activations"].astype(np.float32)
    columns["document"], columns["position"] = rows.document, rows.position

    for batch in _batches(rows, data):
      # Asked at every batch: on a slow machine a shard takes longer than a cluster waits.
      _refuse_to_go_on()
      reading = self.read(sharding.shard_rows(batch.tokens), batch.row, batch.position)

      # The slots after the first `count` only fill the compiled shape.
      count = len(batch.place)
      for name in ("activations", "next_tokens", "next_logprobs"):
        if name in columns:
          columns[name][batch.place] = sharding.fetch(getattr(reading, name))[:count]
      self.progress.advance(count)

    if not np.isfinite(columns["activations"]).all():
      raise NLAError(
        f"the target gave activations that are not finite at layer {self.config.layer}; compute in float32 "
        "(--config.compute=float32) or choose another layer"
      )
    columns["norm"] = np.linalg.norm(columns["activations"], axis=1).astype(np.float32)
    return columns | rounding.rounded(columns["activations"], data.rows)

  def _count_batches(self, shard: int) -> int:
    """Returns how many batches a shard has, from the lengths of its documents alone."""
    document = self.corpus.document_of(self.writer.shard_range(shard))
    lengths = self.corpus.lengths[np.unique(document)]
    buckets, members = np.unique(-(-lengths // _BUCKET), return_counts=True)
    sizes = [batch_shape(self.config.data, int(bucket) * _BUCKET)[0] for bucket in buckets]
    return sum(-(-n // size) for n, size in zip(members.tolist(), sizes, strict=True))


def _refuse_to_go_on() -> None:
  if distributed.preempted():
    raise distributed.PreemptedError("extract stopped; the shards that are written are kept")


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


def _batches(rows: Rows, data) -> Iterator[_Batch]:
  """Yields documents of like length together, so that there are few shapes to compile and little padding."""
  by_shape: dict[tuple[int, int], list[int]] = {}
  for i, document in rows.documents.items():
    shape = batch_shape(data, len(document.tokens))
    by_shape.setdefault(shape, []).append(i)

  for (size, bucket), members in sorted(by_shape.items(), key=lambda item: item[0][1]):
    for start in range(0, len(members), size):
      yield _batch(rows, members[start : start + size], (size, bucket), data)


def _batch(rows: Rows, chosen: list[int], shape: tuple[int, int], data) -> _Batch:
  tokens = np.zeros(shape, np.int32)
  line_of = {}
  for line, i in enumerate(chosen):
    ids = rows.documents[i].tokens
    tokens[line, : len(ids)] = ids
    line_of[i] = line

  place = np.flatnonzero(np.isin(rows.document, chosen))
  row = np.array([line_of[i] for i in rows.document[place].tolist()], np.int32)
  position = rows.position[place].astype(np.int32)

  # Every batch of a shape has as many slots, whatever its documents give: one compilation serves all.
  padding = (0, shape[0] * data.positions_per_document - len(place))
  return _Batch(tokens, np.pad(row, padding), np.pad(position, padding), place)
