"""Writing the reference pipeline's parquet files; see `nla_jax.interop.reference_data.reader` for what is in them."""

import contextlib
import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.autoencoder.prompts import wrap_explanation
from nla_jax.errors import NLAError
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
_REPEATED = [
  "doc_id",
  "activation_layer",
  "prompt.list.element.role",
  "prompt.list.element.content",
]


class DataWriter:
  """Writes a parquet file, then its sidecar. Until `finish`, only `{path}.partial` is there.

  Args:
    path: must not exist.
    stage: see `schema`.
    d: width of an activation.
    layer: K.
    explained: `base` only: rows come with explanations.
    texts: rows come with texts.
    av_template: of `av_sft` and `rl`.
    ar_template: of `ar_sft`.
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
    """Appends rows; a row group holds at most `rows_per_group(d)` of them."""
    n, width = len(rows), self._schema.field(ACTIVATION).type.list_size
    vectors = np.ascontiguousarray(rows.activations, np.float32)
    if vectors.shape != (n, width):
      raise ValueError(
        f"{n} rows came with activations {list(vectors.shape)}, expected {[n, width]}"
      )
    av_template, ar_template = self._templates
    if self.stage == "ar_sft":
      prompts = [ar_template.format(explanation=text) for text in rows.explanations]
    elif self.stage != "base":
      prompts = [[{"role": "user", "content": av_template.format(injection_char=INJECT)}]] * n
    else:
      prompts = None
    columns = {
      "n_raw_tokens": rows.n_raw_tokens,
      TEXT: rows.texts,
      "activation_layer": np.full(n, self.layer),
      "doc_id": rows.doc_ids,
      EXPLANATION: rows.explanations,
      "prompt": prompts,
      "response": [wrap_explanation(text) for text in rows.explanations]
      if self.stage == "av_sft"
      else None,
      ACTIVATION: pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width),
    }
    table = pa.table(
      {
        f.name: c if isinstance(c := columns[f.name], pa.Array) else pa.array(c, f.type)
        for f in self._schema
      },
      schema=self._schema,
    )
    try:
      self._writer.write_table(table, row_group_size=self._group)
    except OSError as error:
      self._discard()
      raise NLAError(
        f"{self.path} could not be written ({str(error).splitlines()[0]}); free some space and run the "
        "same command again"
      ) from error
    self.n_rows += n

  def finish(self, sidecar: DatasetSidecar) -> None:
    """Puts the file in its place and writes the sidecar, with the true row count, last."""
    try:
      self._writer.close()
      os.replace(self._partial, self.path)
    except OSError as error:
      raise NLAError(
        f"{self.path} could not be written ({error}); free some space and run the same command "
        "again"
      ) from error
    write_dataset_sidecar(
      self.path, dataclasses.replace(sidecar, stage=self.stage, row_count=self.n_rows)
    )

  def _discard(self) -> None:
    with contextlib.suppress(OSError):  # the disk is full; what is open is deleted anyway
      self._writer.close()
    self._partial.unlink(missing_ok=True)
