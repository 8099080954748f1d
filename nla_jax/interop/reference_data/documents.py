"""The documents behind parquet rows: the store keeps each document's tokens once, a parquet file each row's own text.

A parquet file has no token ids. The text of a document's longest prefix is tokenised again and stands for the document;
a row's position is `n_raw_tokens - 1` in it. Text does not always come back as the tokens that it was made from. Where
the count differs from `n_raw_tokens`, the document is pieced together from all of its rows' texts, so that each row's
position still holds the last tokens of that row's own text; such documents are counted, and only their tokens (shown in
reports, used by the control `mean_per_last_token`) are approximate, never an activation or a position.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nla_jax.autoencoder.text import encode
from nla_jax.errors import NLAError
from nla_jax.interop.reference_data.reader import DataFile

_BATCH = 256  # texts collected before they are tokenised


@dataclasses.dataclass(frozen=True)
class Index:
  """What the rows of several files say without their activations, in the files' order.

  Attributes:
    ids: documents in the order of their first row.
    stages: [documents] the stage of the file that a document is in.
    document: [N] int32 index into `ids`.
    position: [N] int32, `n_raw_tokens - 1`.
    texts: {row: explanation} of the rows that have one.
  """

  ids: list[str]
  stages: list[str]
  document: np.ndarray
  position: np.ndarray
  texts: dict[int, str]


def index_rows(files: Sequence[DataFile]) -> Index:
  """Reads everything but activations and texts.

  Raises:
    NLAError: one document is in files of two stages.
  """
  number: dict[str, int] = {}  # index of a document, by id
  stages: list[str] = []
  document, position, texts = [], [], {}
  row = 0

  for file in files:
    stage = file.sidecar.stage
    for _, rows in file.read(explanations=True):
      for name in rows.doc_ids:
        # A name that is new gets the next number, and its stage is kept under it.
        if number.setdefault(name, len(stages)) == len(stages):
          stages.append(stage)
        elif stages[number[name]] != stage:
          raise NLAError(
            f"the document {name!r} is in a file of stage {stages[number[name]]} and in {file.path} of "
            f"stage {stage}; a document belongs to one split: convert base files alone, or the files of "
            "one split"
          )
      document.append(np.array([number[name] for name in rows.doc_ids], np.int32))
      position.append((rows.n_raw_tokens - 1).astype(np.int32))
      texts |= {row + i: text for i, text in enumerate(rows.explanations or ()) if text is not None}
      row += len(rows)

  return Index(list(number), stages, np.concatenate(document), np.concatenate(position), texts)


def document_tokens(
  index: Index, sources: Sequence[DataFile], tokenizer
) -> tuple[list[np.ndarray], int]:
  """Tokenises each document.

  1. The text of the longest prefix is tokenised.
  2. Documents that come back as another number of tokens are pieced together (see the module).

  Args:
    index: the rows to be served.
    sources: files that hold the texts of these rows, among others.
    tokenizer: the target's.

  Returns:
    tokens of each document, [longest prefix] int32, and how many documents had to be pieced together.

  Raises:
    NLAError: a document's longest prefix is in no source.
  """
  longest = np.zeros(len(index.ids), np.int64)
  np.maximum.at(longest, index.document, index.position.astype(np.int64) + 1)
  number = {name: i for i, name in enumerate(index.ids)}
  tokens: list[np.ndarray | None] = [None] * len(index.ids)

  # 1. The longest prefix; the first row that has it is enough.
  def is_longest(i: int, n: int) -> bool:
    return tokens[i] is None and n == longest[i]

  for (i, _), ids in _tokenised(sources, is_longest, number, tokenizer):
    tokens[i] = ids

  missing = [i for i, ids in enumerate(tokens) if ids is None]
  if missing:
    raise NLAError(
      f"{len(missing)} of {len(tokens)} documents come without their text (the first is "
      f"{index.ids[missing[0]]!r}), and the store keeps each document's tokens: give the base file of the "
      "same documents with --texts=FILE"
    )

  # 2. The others, which a second pass over the files collects all prefixes of.
  pieces: dict[int, dict[int, np.ndarray]] = {
    i: {} for i, ids in enumerate(tokens) if len(ids) != longest[i]
  }

  def is_piece(i: int, n: int) -> bool:
    return i in pieces and n <= longest[i] and n not in pieces[i]

  if pieces:
    for (i, n), ids in _tokenised(sources, is_piece, number, tokenizer):
      pieces[i][n] = ids
  for i, prefixes in pieces.items():
    tokens[i] = _joined(prefixes)
  return tokens, len(pieces)


def _tokenised(
  sources: Sequence[DataFile],
  wanted: Callable[[int, int], bool],
  number: dict[str, int],
  tokenizer,
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
  """Yields ((document, n_raw_tokens), tokens [n] int32) of the texts that are `wanted`."""
  for texts in _batched(sources, wanted, number):
    for (i, n), text in texts.items():
      yield (i, n), _encode(tokenizer, text, n)


def _batched(
  sources: Sequence[DataFile], wanted: Callable[[int, int], bool], number: dict[str, int]
) -> Iterator[dict[tuple[int, int], str]]:
  """Yields {(document, n_raw_tokens): text} of the rows that are `wanted`, some at a time."""
  texts: dict[tuple[int, int], str] = {}
  for file in sources:
    if not file.has_texts:
      continue
    for _, rows in file.read(texts=True):
      for name, n, text in zip(rows.doc_ids, rows.n_raw_tokens.tolist(), rows.texts, strict=True):
        i = number.get(name)
        if i is None or text is None or not wanted(i, n):
          continue
        texts[i, n] = text
        if len(texts) == _BATCH:
          yield texts
          texts = {}

  if texts:
    yield texts


def _encode(tokenizer, text: str, count: int) -> np.ndarray:
  """Tokenises a text with the special tokens that the target sees first, or without, whichever gives `count`."""
  ids = encode(tokenizer, text, special=True)
  if len(ids) != count:
    plain = encode(tokenizer, text)
    ids = plain if len(plain) == count else ids
  return np.array(ids, np.int32)


def _joined(pieces: dict[int, np.ndarray]) -> np.ndarray:
  """Joins prefixes {n: tokens} so that index n - 1 holds the last token of the prefix that should have n."""
  out, before = [], 0
  for n, ids in sorted(pieces.items()):
    tail = ids[-(n - before) :]
    # A prefix that came back as too few tokens is padded in front, so its last token still stands at n - 1.
    first = ids[:1] if len(ids) else np.zeros(1, np.int32)
    out += [np.repeat(first, n - before - len(tail)), tail]
    before = n
  return np.concatenate(out)
