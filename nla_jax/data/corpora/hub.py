"""Corpora on the Hugging Face hub, or in a folder of a data set, through the package `datasets`."""

import importlib.util
from collections.abc import Iterable, Iterator

from nla_jax.data.corpora.document import CONTENT, Document, Records, document_of_row
from nla_jax.data.tables import without_nan
from nla_jax.errors import NLAError, first_line
from nla_jax.files import here

PREFIX = "hf://"


def read_hub(source: str) -> Records:
  """Returns the records of "hf://name[@subset][:split]": the rows of a split, streamed, a document each.

  A row has `text`, or `messages`.

  Raises:
    NLAError: `datasets` is not installed, the source is incomplete, cannot be opened, or has neither column.
  """
  if importlib.util.find_spec("datasets") is None:
    raise NLAError(
      f"the corpus {source} is read with the Python package datasets, which is not installed; "
      "pip install datasets"
    )
  import datasets

  name, subset, split = _parts(source)
  try:
    rows = datasets.load_dataset(here(name), subset or None, split=split, streaming=True)
  # `datasets` raises its own, the hub's, fsspec's and builtin errors alike.
  except Exception as error:
    raise NLAError(
      f"the corpus {source} cannot be opened: {type(error).__name__}: {first_line(error)}; check "
      "the name, the split and the network, or log in where the data set asks for it"
    ) from error
  if rows.column_names and not set(CONTENT) & set(rows.column_names):
    raise NLAError(
      f"the data set {source} has no column {' or '.join(map(repr, CONTENT))}; its columns are "
      f"{', '.join(rows.column_names)}"
    )

  def document(number: int, row: dict) -> list[Document]:
    place = f"{source} row {number}"
    return [document_of_row(without_nan(row), f"{name}#{number}", place)]

  return Records(_streamed(rows, source), document)


def _streamed(rows: Iterable[dict], source: str) -> Iterator[tuple[int, dict]]:
  """Yields (number, row). Raises NLAError where the stream breaks off: a file of it is damaged, or the network gone."""
  number = -1
  try:
    for number, row in enumerate(rows):
      yield number, row
  except Exception as error:
    raise NLAError(
      f"the corpus {source} cannot be read behind row {number}: {type(error).__name__}: {first_line(error)}; check the "
      "network and the files, or give fewer documents with --config.data.max_documents"
    ) from error


def _parts(source: str) -> tuple[str, str, str]:
  """Returns (name, subset or "", split) of a source; the split is `train` where none is given."""
  rest = source.removeprefix(PREFIX)

  # A split never holds a slash, so a colon before the last slash belongs to a path.
  head, colon, split = rest.rpartition(":")
  name, split = (head, split) if colon and "/" not in split else (rest, "train")
  name, _, subset = name.partition("@")

  if not name or not split:
    raise NLAError(
      f"the corpus {source!r} is incomplete; write hf://name, hf://name:split or hf://name@subset:split"
    )
  return name, subset, split
