"""Writes the reference pipeline's parquet files; `docs/interchange.md` says what is in them."""

import contextlib
import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.autoencoder.prompts import ar_text, av_content, wrap_explanation
from nla_jax.errors import NLAError, first_line
from nla_jax.interop.reference_data.reader import (
  ACTIVATION,
  EXPLANATION,
  TEXT,
  Rows,
  rows_per_group,
  schema,
)
from nla_jax.interop.reference_data.sidecar import DatasetSidecar, write_dataset_sidecar

INJECT = "<INJECT>"
# Columns whose values repeat from row to row; of the others a dictionary would hold every value.
_REPEATED = [
  "doc_id",
  "activation_layer",
  "prompt.list.element.role",
  "prompt.list.element.content",
]


class DataWriter:
  """Writes a parquet file, then its sidecar. Until `finish`, only `{path}.partial` is there.

  Used in a `with`: where its body raises, the partial file is deleted.

  Args:
    path: must not exist.
    stage: see `schema`.
    d: width of an activation.
    layer: K.
    explained: `base` only: rows come with explanations.
    texts: rows come with texts.
    av_template: of `av_sft` and `rl`.
    ar_template: of `ar_sft`.

  Attributes:
    n_rows: written so far.

  Raises:
    NLAError: the file is there already, or cannot be written.
  """

  def __init__(
    self,
    path: str | Path,
    stage: str,
    d: int,
    layer: int,
    *,
    explained: bool = False,
    texts: bool = True,
    av_template: str | None = None,
    ar_template: str | None = None,
  ):
    self.path, self.stage, self.layer = Path(path), stage, layer
    if self.path.exists():
      raise NLAError(f"{path} is already there; delete it or give another name")

    self._schema = schema(stage, d, explained=explained, texts=texts)
    self._templates = av_template, ar_template
    self._partial = self.path.with_name(self.path.name + ".partial")
    self._group = rows_per_group(d)
    self.n_rows = 0

    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._writer = pq.ParquetWriter(
        self._partial, self._schema, compression="zstd", use_dictionary=_REPEATED
      )
    except OSError as error:
      raise NLAError(
        f"{path} cannot be written ({error.strerror}); make its folder writable or give another "
        "path"
      ) from error

  def __enter__(self) -> "DataWriter":
    return self

  def __exit__(self, kind, *_) -> None:
    if kind is not None:
      self._discard()

  def write(self, rows: Rows) -> None:
    """Appends rows; a row group holds at most `rows_per_group(d)` of them.

    Raises:
      NLAError: the file cannot be written; what was written is deleted.
      ValueError: there is not one activation of width d a row.
    """
    n, width = len(rows), self._schema.field(ACTIVATION).type.list_size
    activations = np.ascontiguousarray(rows.activations, np.float32)
    if activations.shape != (n, width):
      raise ValueError(
        f"{n} rows came with activations {list(activations.shape)}, expected {[n, width]}"
      )

    values = {
      "n_raw_tokens": rows.n_raw_tokens,
      TEXT: rows.texts,
      "activation_layer": np.full(n, self.layer),
      "doc_id": rows.doc_ids,
      EXPLANATION: rows.explanations,
      "prompt": self._prompts(rows),
      "response": self._responses(rows),
    }
    columns = {
      field.name: pa.array(values[field.name], field.type)
      for field in self._schema
      if field.name != ACTIVATION
    }
    # From the flat array: no activation becomes a Python number.
    columns[ACTIVATION] = pa.FixedSizeListArray.from_arrays(
      pa.array(activations.reshape(-1)), width
    )
    table = pa.table([columns[field.name] for field in self._schema], schema=self._schema)

    try:
      self._writer.write_table(table, row_group_size=self._group)
    except OSError as error:
      self._discard()
      raise NLAError(
        f"{self.path} could not be written ({first_line(error)}); free some space and run the "
        "same command again"
      ) from error
    self.n_rows += n

  def _prompts(self, rows: Rows) -> list | None:
    """Returns the `prompt` of each row: a chat for the AV, a text for the AR; None in stage base."""
    av_template, ar_template = self._templates
    if self.stage == "base":
      return None
    if self.stage == "ar_sft":
      return [ar_text(ar_template, text) for text in rows.explanations]

    # The marker is the tokenizer's, so the files hold this word in its place and the sidecar names the marker.
    content = av_content(av_template, INJECT)
    return [[{"role": "user", "content": content}]] * len(rows)

  def _responses(self, rows: Rows) -> list[str] | None:
    if self.stage != "av_sft":
      return None
    return [wrap_explanation(text) for text in rows.explanations]

  def finish(self, sidecar: DatasetSidecar) -> None:
    """Puts the file in its place and writes the sidecar, with the true row count, last.

    Raises:
      NLAError: there is no room left.
    """
    try:
      self._writer.close()
      os.replace(self._partial, self.path)
    except OSError as error:
      raise NLAError(
        f"{self.path} could not be written ({error}); free some space and run the same command "
        "again"
      ) from error

    # Last, because a parquet file without a sidecar is refused: a crash before leaves nothing that looks whole.
    sidecar = dataclasses.replace(sidecar, stage=self.stage, row_count=self.n_rows)
    write_dataset_sidecar(self.path, sidecar)

  def _discard(self) -> None:
    with contextlib.suppress(OSError):  # the disk is full; what is open is deleted anyway
      self._writer.close()
    self._partial.unlink(missing_ok=True)
