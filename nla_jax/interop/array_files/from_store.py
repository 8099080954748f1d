"""From an activation store, or some rows of it, to one `npz` or `safetensors` file; `to_store` says what it holds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.interop.array_files.writer import Column, column, write_array_file
from nla_jax.interop.reference_data.reader import rows_per_group


def write_rows(store: Store, path: str | Path, rows: np.ndarray, model: str) -> int:
  """Writes rows of a store, in the order given, with their documents and nothing of others.

  Args:
    store: of activations.
    path: ends with .npz or .safetensors; must not exist.
    rows: [n] indices.
    model: the target's name, for the metadata.

  Returns:
    rows written.

  Raises:
    NLAError: there is no such row, or the file cannot be written.
  """
  rows = np.asarray(rows, np.int64)
  if not len(rows):
    raise NLAError(f"no row of {store.path} is left to be written; choose others")

  # 1. Documents that a row is from, counted anew.
  kept, document = np.unique(store.read("document", rows), return_inverse=True)
  documents = [store.documents[int(i)] for i in kept]
  tokens = [one.tokens for one in documents]
  columns = {
    "activations": Column((len(rows), store.d), "float32", lambda: _batches(store, rows)),
    "offsets": column(np.cumsum([0, *map(len, tokens)]).astype(np.int64)),
    "tokens": column(np.concatenate(tokens).astype(np.int32)),
    "document": column(document.reshape(-1).astype(np.int32)),
    "position": column(store.read("position", rows)),
    "norm": column(store.read("norm", rows)),
  }

  # 2. What they are called.
  strings = {
    "ids": [one.id for one in documents],
    "groups": [one.group for one in documents],
    "splits": [one.split for one in documents],
  }
  if any(one.source for one in documents):
    strings["sources"] = [one.source for one in documents]
  made_from = store.manifest["made_from"]
  metadata = {
    "model": model,
    "layer": store.manifest["layer"],
    "tokenizer": made_from.get("tokenizer"),
    "corpus": str(made_from.get("corpus") or ""),
    "content_hash": store.manifest["content_hash"],
  }
  write_array_file(path, columns, strings, metadata)
  return len(rows)


def chosen_rows(store: Store, split: str | None = None, part: str | None = None) -> np.ndarray:
  """The rows of a selection.

  Args:
    store: of activations.
    split: keeps rows of it; None for all.
    part: "A:B" keeps rows A to B - 1 of what is left, with Python's meaning of a missing or negative number.

  Raises:
    NLAError: there is no such split, or `part` is no such range.
  """
  rows = np.arange(len(store)) if split is None else store.rows(split)
  if part is None:
    return rows
  ends = part.split(":")
  try:
    start, stop = (int(end) if end.strip() else None for end in ends)
  except ValueError:
    raise NLAError(f"--rows={part}: expected A:B, such as 0:1000") from None
  return rows[slice(start, stop)]


def _batches(store: Store, rows: np.ndarray) -> Iterator[np.ndarray]:
  together = rows_per_group(store.d)
  for start in range(0, len(rows), together):
    yield store.read("activations", rows[start : start + together])
