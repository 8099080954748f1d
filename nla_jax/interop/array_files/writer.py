"""Named arrays into one file, `npz` or `safetensors`, a run of rows at a time: a store is larger than memory."""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nla_jax.errors import NLAError, first_line
from nla_jax.files import here
from nla_jax.interop.array_files.reader import ENDINGS

_NAMES = {"float32": "F32", "int32": "I32", "int64": "I64"}  # of safetensors


@dataclasses.dataclass(frozen=True)
class Column:
  """An array that is written.

  Attributes:
    shape: of the whole.
    dtype: float32, int32 or int64.
    batches: gives its rows, in order.
  """

  shape: tuple[int, ...]
  dtype: str
  batches: Callable[[], Iterable[np.ndarray]]


def column(array: np.ndarray) -> Column:
  """Returns an array that is in memory as a column."""
  return Column(array.shape, array.dtype.name, lambda: [array])


def write_array_file(
  path: str | Path,
  columns: Mapping[str, Column],
  strings: Mapping[str, Sequence[str]],
  metadata: Mapping,
) -> None:
  """Writes one file, which appears whole or not at all.

  Args:
    path: ends with .npz or .safetensors; must not exist.
    columns: {name: array}.
    strings: {name: strings}.
    metadata: JSON values.

  Raises:
    NLAError: the path is taken, in a bucket, or of another ending, or the file cannot be written.
  """
  path = Path(check_target(path))
  partial = path.with_name(path.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
      _write_npz(partial, columns, strings, metadata)
    else:
      _write_safetensors(partial, columns, strings, metadata)
    os.replace(partial, path)
  except OSError as error:
    raise NLAError(
      f"{path} could not be written ({first_line(error)}); free some space and run the same command again"
    ) from error
  finally:
    partial.unlink(missing_ok=True)


def check_target(path: str | Path) -> str:
  """The path of a file that may be written. Raises NLAError where it may not."""
  found = here(path)
  if "://" in found:
    raise NLAError(
      f"{path} is in a bucket, and one file of arrays is written on a disk; copy it there afterwards"
    )
  if Path(found).suffix not in ENDINGS:
    raise NLAError(f"{path} is no file of arrays; expected {' or '.join(ENDINGS)}")
  if Path(found).exists():
    raise NLAError(f"{path} is already there: name another file, or delete it")
  return found


def _write_npz(
  path: Path, columns: Mapping[str, Column], strings: Mapping[str, Sequence[str]], metadata: Mapping
) -> None:
  texts = {name: np.array(values, np.str_) for name, values in strings.items()}
  texts["metadata"] = np.array(json.dumps(metadata))
  whole = dict(columns)
  for name, text in texts.items():
    whole[name] = Column(text.shape, text.dtype.str, lambda text=text: [text])

  with zipfile.ZipFile(path, "w") as archive:
    for name, one in whole.items():
      # An array of more than 2 GiB needs the longer header of a zip member.
      with archive.open(name + ".npy", "w", force_zip64=True) as file:
        header = {
          "descr": np.dtype(one.dtype).str,
          "fortran_order": False,
          "shape": one.shape,
        }
        np.lib.format.write_array_header_1_0(file, header)
        for batch in one.batches():
          file.write(np.ascontiguousarray(batch, one.dtype).tobytes())


def _write_safetensors(
  path: Path, columns: Mapping[str, Column], strings: Mapping[str, Sequence[str]], metadata: Mapping
) -> None:
  # 1. The header: where each tensor lies behind it, and the strings.
  header = {"__metadata__": {name: json.dumps(list(values)) for name, values in strings.items()}}
  header["__metadata__"]["metadata"] = json.dumps(metadata)
  start = 0
  for name, one in columns.items():
    stop = start + np.dtype(one.dtype).itemsize * math.prod(one.shape)
    header[name] = {
      "dtype": _NAMES[one.dtype],
      "shape": list(one.shape),
      "data_offsets": [start, stop],
    }
    start = stop

  # 2. Blanks behind the header let the tensors begin at a multiple of eight bytes.
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for one in columns.values():
      for batch in one.batches():
        file.write(np.ascontiguousarray(batch, one.dtype).tobytes())
