"""Batches in a fixed random order that can be resumed at any batch; threads and processes do not change them.

Grain shuffles and batches row indices. A batch is then fetched whole, in one read where the source can do that
(`__getitems__`). Threads fetch ahead and Grain keeps the order, so nothing but `seed` decides what a step sees.
"""

from collections.abc import Mapping, Sequence

import grain
import numpy as np

from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError


class StoreRows:
  """Some rows of a store as a random-access source of dicts, read a batch at a time.

  Args:
    store: an open activation store.
    rows: [n] row indices, such as `store.rows("rl")`.
    names: arrays of the store that each element holds, beside `row`, its index in the store (int64).
    columns: further arrays [n, …] that each element holds, kept in memory: tokens of explanations.

  Raises:
    NLAError: there is no row.
  """

  def __init__(
    self,
    store: Store,
    rows: np.ndarray,
    names: Sequence[str] = ("activations",),
    columns: Mapping[str, np.ndarray] | None = None,
  ):
    if len(rows) == 0:
      raise NLAError(
        f"no row of the store {store.path} is left to train on; lower config.data.held_out, take more "
        "documents, or give explanations of its activations"
      )
    self._store, self._names = store, tuple(names)
    self._columns = {"row": np.asarray(rows, np.int64), **(columns or {})}

  def __len__(self) -> int:
    return len(self._columns["row"])

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return {name: value[0] for name, value in self.__getitems__([index]).items()}

  def __getitems__(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Arrays [len(indices), …] by name, each in one read."""
    given = {name: column[np.asarray(indices)] for name, column in self._columns.items()}
    return given | {name: self._store.read(name, given["row"]) for name in self._names}


def batches(
  source: Sequence[Mapping[str, np.ndarray]],
  *,
  batch_size: int,
  seed: int,
  epochs: int | None = None,
  shuffle: bool = True,
  num_threads: int = 2,
  part: np.ndarray | slice = slice(None),
) -> grain.DatasetIterator:
  """An iterator over batches, dicts of arrays [batch_size, …], or over the same part of each batch.

  Every epoch has its own order. A batch may hold the end of one epoch and the beginning of the next, so each row is
  seen `epochs` times; only the rows that do not fill the very last batch are left out. `get_state()` returns a small
  dict of JSON values, and after `set_state()` with it the same batches follow, in another process too.

  Args:
    source: gives a dict of arrays for an index; the arrays of one name have one shape. Where it has
      `__getitems__(indices)`, which returns the stacked dict, a batch is one call. Called from several threads.
    batch_size: rows of the whole batch, over all processes.
    seed: of the order, in [0, 2**32).
    epochs: None never ends.
    shuffle: False keeps the source's order in every epoch.
    num_threads: threads that read ahead; 0 reads in the caller's thread.
    part: which rows of each batch are read and returned; with several processes, what this one's devices need.

  Raises:
    NLAError: the source does not fill one batch, or the seed or the batch size is out of range.
  """
  # 1. What cannot give a batch is said now: Grain would end, or wait, without a word.
  rows = len(source)
  if batch_size < 1:
    raise NLAError(f"the batch size is {batch_size}; give at least 1")
  if rows == 0 or (epochs is not None and rows * epochs < batch_size):
    raise NLAError(
      f"{rows} row(s) over {epochs or 'any number of'} epoch(s) do not fill one batch of {batch_size}; "
      "give more data or a smaller batch size"
    )
  if not 0 <= seed < 2**32:
    raise NLAError(f"the data seed is {seed}; give a whole number from 0 to {2**32 - 1}")

  # 2. The order, of indices alone: it costs no reading.
  indices = grain.MapDataset.range(rows)
  if shuffle:
    indices = indices.shuffle(seed=seed)

  # 3. Whole batches of rows, fetched ahead by threads.
  dataset = (
    indices.repeat(epochs)
    .batch(batch_size, drop_remainder=True)
    .map(lambda batch: _fetch(source, batch[part]))
  )
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
  return iter(dataset.to_iter_dataset(options))


def _fetch(source, indices: np.ndarray) -> dict[str, np.ndarray]:
  """The rows of a batch, stacked."""
  if hasattr(source, "__getitems__"):
    return source.__getitems__(indices.tolist())

  elements = [source[i] for i in indices.tolist()]
  return {name: np.stack([element[name] for element in elements]) for name in elements[0]}
