"""Reads the reference pipeline's parquet files: base (raw or explained), av_sft, ar_sft and rl, each with its sidecar.

`docs/interchange.md` says what is in them. Files of any size pass with one batch of rows in memory. pyarrow's `take()`
corrupts list columns over 4 GiB, and a plain `list` overflows its 32-bit offsets. So rows are written in small row
groups of fixed-size lists, and read in batches of row groups through a buffered stream; nothing here ever holds a whole
column. On reading, a plain or large list of the right length is as good as a fixed-size one.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_jax.autoencoder.prompts import AR_FIELD, parse_explanation
from nla_jax.data.tables import LISTS, NAMES, NUMBERS, TEXTS, refuse_types
from nla_jax.errors import NLAError, first_line
from nla_jax.files import expect_file
from nla_jax.interop.reference_data.sidecar import (
  STAGES,
  dataset_sidecar_path,
  read_dataset_sidecar,
)

ACTIVATION, TEXT, EXPLANATION = "activation_vector", "detokenized_text_truncated", "api_explanation"
_EXPLAINED_BY = {"base": EXPLANATION, "av_sft": "response", "ar_sft": "prompt"}  # column, by stage
_BATCH_BYTES = 32 << 20  # of activations: a row group that is written, a batch that is read
_MOST_ROWS = 16384  # of a row group that is written, and of a batch without activations
_BUFFER_BYTES = 1 << 20
_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def rows_per_group(d: int) -> int:
  """Returns how many rows fill one batch with activations of width `d`, at most 16384."""
  return int(np.clip(_BATCH_BYTES // (4 * d), 1, _MOST_ROWS))


def schema(stage: str, d: int, *, explained: bool = False, texts: bool = True) -> pa.Schema:
  """Returns the columns of a stage.

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
    explanation = [(EXPLANATION, pa.string())] if explained else []
    return pa.schema([numbers[0], *text, activation, *numbers[1:], *explanation])

  # The AR's prompt is a text around the explanation, the AV's is a chat with a marker.
  prompt = ("prompt", pa.string() if stage == "ar_sft" else _CHAT)
  response = [("response", pa.string())] if stage == "av_sft" else []
  return pa.schema([prompt, *response, activation, *numbers, *(text if texts else [])])


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
    self.path = Path(expect_file(path, "the parquet file", "check the path"))
    self._file = open_parquet(self.path)
    self.sidecar = read_dataset_sidecar(path)
    self._refuse_contradictions()

    columns = self._file.schema_arrow.names
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
    """Yields (index of the first row, rows) from row `start` to the end, in the file's order, a batch at a time.

    Raises:
      NLAError: a value is missing, not finite, or not what the sidecar says; the row is named.
    """
    source = _EXPLAINED_BY.get(self.sidecar.stage)
    columns = ["doc_id", "n_raw_tokens", "activation_layer"]
    if activations:
      columns.append(ACTIVATION)
    if texts and self.has_texts:
      columns.append(TEXT)
    if explanations and self.has_explanations:
      columns.append(source)

    # Row groups before `start` are not read at all; of the first one that is, the rows before `start` are cut off.
    sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
    ends = np.cumsum(sizes)
    first_group = int(np.searchsorted(ends, start, side="right"))
    row = int(ends[first_group] - sizes[first_group]) if first_group < len(sizes) else len(self)

    batches = self._file.iter_batches(
      rows_per_group(self.sidecar.d_model) if activations else _MOST_ROWS,
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
        f"{self.path} is damaged after row {row} ({first_line(error)}); fetch it again"
      ) from error

  def _refuse_contradictions(self) -> None:
    """Raises NLAError where the file and its sidecar do not belong together, or there is nothing to read."""
    stage, columns = self.sidecar.stage, self._file.schema_arrow.names
    if stage not in STAGES:
      raise NLAError(
        f"{dataset_sidecar_path(self.path)} has stage {stage!r}; expected one of {', '.join(STAGES)}"
      )

    # Any width will do, only the names are compared. Texts may be left out of every stage but base.
    needed = [name for name in schema(stage, 1, texts=False).names if name != TEXT]
    missing = [name for name in needed if name not in columns]
    if missing:
      raise NLAError(
        f"{self.path} lacks the column {missing[0]}, which a file of stage {stage} has; its "
        f"columns are {', '.join(columns)}"
      )
    refuse_types(str(self.path), self._file.schema_arrow, _kinds(stage))
    if self.sidecar.row_count != len(self):
      raise NLAError(
        f"{self.path} has {len(self)} rows, its sidecar says {self.sidecar.row_count}: they do not belong "
        "together, or the file was cut; take both from their maker again"
      )
    if not len(self):
      raise NLAError(f"{self.path} holds no row; there is nothing to convert")

  def _rows(self, batch: pa.RecordBatch, row: int, source: str | None) -> Rows:
    """Parses a batch that begins at `row`; `source` is the column that its explanations stand in."""
    names = batch.schema.names
    for name in ("doc_id", "n_raw_tokens", "activation_layer", ACTIVATION):
      if name in names and batch.column(name).null_count:
        nulls = batch.column(name).is_null().to_numpy(zero_copy_only=False)
        raise NLAError(
          f"{self.path} row {row + int(np.flatnonzero(nulls)[0])} has no {name}; every row needs one"
        )

    layers = batch.column("activation_layer").to_numpy()
    wanted = self.sidecar.layer_index
    self._refuse(layers != wanted, row, f"is of another layer than the sidecar's {wanted}")
    numbers = batch.column("n_raw_tokens").to_numpy()
    whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
    self._refuse(~whole | (numbers < 1), row, "has n_raw_tokens below 1, or no whole number there")
    counts = numbers.astype(np.int64)

    activations = self._matrix(batch.column(ACTIVATION), row) if ACTIVATION in names else None
    texts = batch.column(TEXT).to_pylist() if TEXT in names else None
    explanations = None
    if source in names:
      explanations = self._explanations(batch.column(source).to_pylist(), row)
    doc_ids = [str(name) for name in batch.column("doc_id").to_pylist()]
    return Rows(doc_ids, counts, activations, texts, explanations)

  def _explanations(self, values: list[str | None], row: int) -> list[str | None]:
    """Returns the explanations inside the column that they stand in, see `_EXPLAINED_BY`."""
    # A base file may explain some of its rows only; an empty text explains nothing.
    if self.sidecar.stage == "base":
      return [text.strip() or None if text else None for text in values]

    around = None
    if self.sidecar.stage == "ar_sft":
      around = _around(self.sidecar.ar_template, self.path)
    return [self._between(row + i, value, around) for i, value in enumerate(values)]

  def _matrix(self, column: pa.Array, row: int) -> np.ndarray:
    """Returns [n, d] float32 of a list column of any kind."""
    d, kind = self.sidecar.d_model, column.type

    # A plain list may hold rows of any width, so each is measured.
    if pa.types.is_fixed_size_list(kind):
      widths = np.full(len(column), kind.list_size)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
      widths = np.diff(column.offsets.to_numpy())
    else:
      raise NLAError(f"{self.path}: {ACTIVATION} is of type {kind}; expected a list of float32")
    if not pa.types.is_floating(kind.value_type):
      raise NLAError(f"{self.path}: {ACTIVATION} holds {kind.value_type}; expected float32")

    # The width is checked before the reshape, which would take rows of other widths that add up.
    self._refuse(widths != d, row, f"has an activation that is not {d} wide, as the sidecar says")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    vectors = flat.reshape(len(column), d)
    self._refuse(~np.isfinite(vectors).all(axis=1), row, "has an activation that is not finite")
    return vectors

  def _refuse(self, bad: np.ndarray, row: int, what: str) -> None:
    """Raises NLAError naming the first row that is `bad` [n] bool, of a batch that begins at `row`."""
    if bad.any():
      raise NLAError(
        f"{self.path} row {row + int(np.flatnonzero(bad)[0])} {what} ({int(bad.sum())} of {len(bad)} rows "
        "from there); correct the file or make it again"
      )

  def _between(self, row: int, value: str | None, around: tuple[str, str] | None) -> str:
    """Returns the explanation inside a response (`around` None) or inside the AR's prompt."""
    if around is None:
      text = parse_explanation(value or "")
      column = "response holds no <explanation>…</explanation>"
    else:
      text = _inside(value or "", *around)
      column = "prompt is not the AR template"

    if not text:
      raise NLAError(
        f"{self.path} row {row}: its {column} around a text: {repr(value)[:60]}; correct the file"
      )
    return text


def _inside(value: str, head: str, tail: str) -> str | None:
  """Returns what stands between `head` and `tail`, None where `value` does not begin and end with them."""
  # The length, too: head and tail may overlap in a value that is too short for both.
  if len(value) < len(head + tail) or not (value.startswith(head) and value.endswith(tail)):
    return None
  return value[len(head) : len(value) - len(tail)].strip()


def _kinds(stage: str) -> dict[str, str]:
  """What the columns of a stage hold."""
  return {
    **dict.fromkeys(("n_raw_tokens", "activation_layer"), NUMBERS),
    **dict.fromkeys((TEXT, EXPLANATION, "response"), TEXTS),
    "doc_id": NAMES,
    "prompt": TEXTS if stage == "ar_sft" else LISTS,
  }


def open_parquet(path: Path) -> pq.ParquetFile:
  """Opens a parquet file for streaming. Raises NLAError where it is none."""
  try:
    # Without the buffer a column chunk is read whole.
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
  except (pa.ArrowException, OSError) as error:
    raise NLAError(
      f"{path} cannot be read as parquet ({first_line(error)}); fetch it again"
    ) from error


def _footer_hash(path: Path, size: int) -> str:
  with open(path, "rb") as file:
    # The last 8 bytes are the footer's length and the magic word.
    file.seek(-min(size + 8, path.stat().st_size), os.SEEK_END)
    return hashlib.sha256(file.read()).hexdigest()


def _around(template: str | None, path: Path) -> tuple[str, str]:
  """Returns what stands before and after the explanation in the AR's template."""
  if template is None:
    raise NLAError(
      f"{dataset_sidecar_path(path)} lacks prompt_templates.critic, which the explanations are read by; "
      "add it"
    )

  head, _, tail = template.partition(AR_FIELD)
  return head, tail
