"""The reference pipeline's parquet files: base (raw or explained), av_sft, ar_sft and rl, each with its sidecar.

Files of any size pass through here with one batch of rows in memory. `take()` corrupts list columns over 4 GiB and a
plain `list` overflows its 32-bit offsets, so rows are written in small row groups of fixed-size lists, and read in
batches of row groups through a buffered stream; nothing here ever holds a whole column, so no offset can overflow.
On reading, a plain or large list of the right length is as good as a fixed-size one.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.autoencoder.prompts import parse_explanation
from nla_jax.errors import NLAError
from nla_jax.interop.reference_data.sidecar import (
  STAGES,
  dataset_sidecar_path,
  read_dataset_sidecar,
)

ACTIVATION, TEXT, EXPLANATION = "activation_vector", "detokenized_text_truncated", "api_explanation"
_BATCH_BYTES = 32 << 20  # of activations: a row group that is written, a batch that is read
_BUFFER_BYTES = 1 << 20
_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def rows_per_group(d: int) -> int:
  """Rows whose activations of width `d` fill one batch, at most 16384."""
  return int(np.clip(_BATCH_BYTES // (4 * d), 1, 16384))


def schema(stage: str, d: int, *, explained: bool = False, texts: bool = True) -> pa.Schema:
  """The columns of a stage.

  Args:
    stage: `base`, `av_sft`, `ar_sft` or `rl`.
    d: width of an activation.
    explained: `base` only: with the teacher's explanation.
    texts: with the text up to each position; always in `base`.
  """
  activation = (ACTIVATION, pa.list_(pa.float32(), d))
  numbers = [
    ("n_raw_tokens", pa.int64()),
    ("activation_layer", pa.int64()),
    ("doc_id", pa.string()),
  ]
  text = [(TEXT, pa.string())]
  if stage == "base":
    return pa.schema(
      [numbers[0], *text, activation, *numbers[1:], *([(EXPLANATION, pa.string())] * explained)]
    )
  prompt = ("prompt", pa.string() if stage == "ar_sft" else _CHAT)
  response = [("response", pa.string())] if stage == "av_sft" else []
  return pa.schema([prompt, *response, activation, *numbers, *(text * texts)])


@dataclasses.dataclass(frozen=True)
class Rows:
  """Consecutive rows of a file.

  Attributes:
    doc_ids: [n] document of each row.
    n_raw_tokens: [n] int64, tokens up to and including the one read: its position + 1.
    activations: [n, d] float32, raw; None where not asked for.
    texts: [n] the document up to the position; None where not asked for or not there.
    explanations: [n] the teacher's, None in a row without one; None where the stage has none.
  """

  doc_ids: Sequence[str]
  n_raw_tokens: np.ndarray
  activations: np.ndarray | None = None
  texts: Sequence[str | None] | None = None
  explanations: Sequence[str | None] | None = None

  def __len__(self) -> int:
    return len(self.doc_ids)


class DataFile:
  """A parquet file with its sidecar, opened for streaming.

  Attributes:
    path: as given.
    sidecar: what is known of it.
    fingerprint: sha256 (hex) of the parquet footer, which holds every column chunk's place, size and statistics.
    has_texts: rows say the text before their position.
    has_explanations: rows may have an explanation.

  Raises:
    NLAError: it is no parquet file, has no sidecar or one that contradicts it, or lacks a column of its stage.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path)
    if not self.path.is_file():
      raise NLAError(f"there is no parquet file at {path}; check the path")
    self._file = open_parquet(self.path)
    self.sidecar = read_dataset_sidecar(path)
    columns = set(self._file.schema_arrow.names)
    if self.sidecar.stage not in STAGES:
      raise NLAError(
        f"{dataset_sidecar_path(path)} has stage {self.sidecar.stage!r}; expected one of "
        f"{', '.join(STAGES)}"
      )
    missing = [
      name
      for name in schema(self.sidecar.stage, 1, texts=False).names
      if name not in columns and name != TEXT
    ]
    if missing:
      raise NLAError(
        f"{path} lacks the column {missing[0]}, which a file of stage {self.sidecar.stage} has; its "
        f"columns are {', '.join(self._file.schema_arrow.names)}"
      )
    if self.sidecar.row_count != len(self):
      raise NLAError(
        f"{path} has {len(self)} rows, its sidecar says {self.sidecar.row_count}: they do not belong "
        "together, or the file was cut; take both from their maker again"
      )
    if not len(self):
      raise NLAError(f"{path} holds no row; there is nothing to convert")
    self.has_texts = TEXT in columns
    self.has_explanations = self.sidecar.stage in ("av_sft", "ar_sft") or EXPLANATION in columns
    self.fingerprint = _footer_hash(self.path, self._file.metadata.serialized_size)

  def __len__(self) -> int:
    return self._file.metadata.num_rows

  def read(
    self,
    start: int = 0,
    *,
    activations: bool = False,
    texts: bool = False,
    explanations: bool = False,
  ) -> Iterator[tuple[int, Rows]]:
    """(index of the first row, rows) from row `start` to the end, in the file's order, a batch at a time.

    Raises:
      NLAError: a value is missing, not finite, or not what the sidecar says; the row is named.
    """
    side = self.sidecar
    source = {"base": EXPLANATION, "av_sft": "response", "ar_sft": "prompt"}.get(side.stage)
    columns = [
      "doc_id",
      "n_raw_tokens",
      "activation_layer",
      *([ACTIVATION] * activations),
      *([TEXT] * (texts and self.has_texts)),
      *([source] * (explanations and self.has_explanations)),
    ]
    sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
    ends = np.cumsum(sizes)
    first_group = int(np.searchsorted(ends, start, side="right"))
    row = int(ends[first_group] - sizes[first_group]) if first_group < len(sizes) else len(self)
    batches = self._file.iter_batches(
      rows_per_group(side.d_model if activations else 512),
      row_groups=list(range(first_group, len(sizes))),
      columns=columns,
    )
    try:
      for batch in batches:
        skip = min(max(start - row, 0), len(batch))
        row, batch = row + skip, batch.slice(skip)
        if len(batch):
          yield row, self._rows(batch, row, source)
          row += len(batch)
    except (pa.ArrowException, OSError) as error:
      raise NLAError(
        f"{self.path} is damaged after row {row} ({str(error).splitlines()[0]}); fetch it again"
      ) from error

  def _rows(self, batch: pa.RecordBatch, row: int, source: str | None) -> Rows:
    for name in ("doc_id", "n_raw_tokens", "activation_layer", ACTIVATION):
      if name in batch.schema.names and batch.column(name).null_count:
        bad = row + int(
          np.flatnonzero(batch.column(name).is_null().to_numpy(zero_copy_only=False))[0]
        )
        raise NLAError(f"{self.path} row {bad} has no {name}; every row needs one")
    layers = batch.column("activation_layer").to_numpy()
    self._refuse(
      layers != self.sidecar.layer_index,
      row,
      f"is of another layer than the sidecar's {self.sidecar.layer_index}",
    )
    counts = batch.column("n_raw_tokens").to_numpy().astype(np.int64)
    self._refuse(counts < 1, row, "has n_raw_tokens below 1")
    vectors = None
    if ACTIVATION in batch.schema.names:
      vectors = self._matrix(batch.column(ACTIVATION), row)
    plain = lambda name: batch.column(name).to_pylist() if name in batch.schema.names else None
    explained = plain(source) if source is not None else None
    if explained is not None and self.sidecar.stage == "av_sft":
      explained = [self._between(row + i, value, None) for i, value in enumerate(explained)]
    elif explained is not None and self.sidecar.stage == "ar_sft":
      around = _around(self.sidecar.ar_template, self.path)
      explained = [self._between(row + i, value, around) for i, value in enumerate(explained)]
    elif explained is not None:
      explained = [text.strip() or None if text else None for text in explained]
    return Rows(
      [str(name) for name in batch.column("doc_id").to_pylist()],
      counts,
      vectors,
      plain(TEXT),
      explained,
    )

  def _matrix(self, column: pa.Array, row: int) -> np.ndarray:
    """[n, d] float32 of a list column of any kind."""
    d, kind = self.sidecar.d_model, column.type
    if pa.types.is_fixed_size_list(kind):
      widths = np.full(len(column), kind.list_size)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
      widths = np.diff(column.offsets.to_numpy())
    else:
      raise NLAError(f"{self.path}: {ACTIVATION} is of type {kind}; expected a list of float32")
    if not pa.types.is_floating(kind.value_type):
      raise NLAError(f"{self.path}: {ACTIVATION} holds {kind.value_type}; expected float32")
    self._refuse(widths != d, row, f"has an activation that is not {d} wide, as the sidecar says")
    vectors = (
      column.flatten()
      .to_numpy(zero_copy_only=False)
      .astype(np.float32, copy=False)
      .reshape(len(column), d)
    )
    self._refuse(~np.isfinite(vectors).all(axis=1), row, "has an activation that is not finite")
    return vectors

  def _refuse(self, bad: np.ndarray, row: int, what: str) -> None:
    if bad.any():
      raise NLAError(
        f"{self.path} row {row + int(np.flatnonzero(bad)[0])} {what} ({int(bad.sum())} of {len(bad)} rows "
        "from there); correct the file or make it again"
      )

  def _between(self, row: int, value: str | None, around: tuple[str, str] | None) -> str:
    """The explanation inside a response (`around` None) or inside the AR's prompt."""
    if around is None:
      text = parse_explanation(value or "")
    else:
      head, tail = around
      whole = value is not None and value.startswith(head) and value.endswith(tail)
      text = (
        value[len(head) : len(value) - len(tail)].strip()
        if whole and len(value) >= len(head + tail)
        else None
      )
    if not text:
      column = (
        "response holds no <explanation>…</explanation>"
        if around is None
        else "prompt is not the AR template"
      )
      raise NLAError(
        f"{self.path} row {row}: its {column} around a text: {repr(value)[:60]}; correct the file"
      )
    return text


def open_parquet(path: Path) -> pq.ParquetFile:
  """Opens for streaming: without the buffer a column chunk is read whole. Raises NLAError if it is no parquet file."""
  try:
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
  except (pa.ArrowException, OSError) as error:
    raise NLAError(
      f"{path} cannot be read as parquet ({str(error).splitlines()[0]}); fetch it again"
    ) from error


def _footer_hash(path: Path, size: int) -> str:
  with open(path, "rb") as file:
    file.seek(-min(size + 8, path.stat().st_size), os.SEEK_END)
    return hashlib.sha256(file.read()).hexdigest()


def _around(template: str | None, path: Path) -> tuple[str, str]:
  if template is None:
    raise NLAError(
      f"{dataset_sidecar_path(path)} lacks prompt_templates.critic, which the explanations are read by; "
      "add it"
    )
  head, _, tail = template.format(explanation="\x00").partition("\x00")
  return head, tail
