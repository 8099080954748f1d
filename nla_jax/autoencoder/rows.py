"""Explanations and activations as fixed-shape token rows: what the AV answers and what the AR reads."""

from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.prompts import Prompts

ROWS = (1, 4, 16, 64)  # of a batch
_STEP = 32  # tokens by which AR inputs grow, so that few shapes are compiled


class Answers(NamedTuple):
  """Rows for the AV.

  Attributes:
    tokens: [n, length] int32, padded with the stop id.
    mask: [n, length] bool, True at real tokens.
  """

  tokens: np.ndarray
  mask: np.ndarray


class Inputs(NamedTuple):
  """Rows for the AR, without the beginning that all of them share.

  Attributes:
    tokens: [n, length] int32; [n, lines, length] where each line of a text is read by itself.
    lengths: [n] int32, real tokens of each row; [n, lines], 0 of a line that is not there.
    fits: [n] bool, False where the row reads an empty explanation instead of its own.
  """

  tokens: np.ndarray
  lengths: np.ndarray
  fits: np.ndarray


def encode_answers(prompts: Prompts, tokenizer, texts: list[str], multiple: int = 8) -> Answers:
  """Supervised answers of all texts, padded to the longest, rounded up to a multiple."""
  rows = [prompts.answer_ids(tokenizer, text) for text in texts]
  # One length for all of them, so that there is one shape to compile.
  length = -(-max(map(len, rows)) // multiple) * multiple
  mask = np.arange(length)[None] < np.array([len(row) for row in rows])[:, None]
  return Answers(_padded(rows, length, prompts.stop_id), mask)


def encode_inputs(
  prompts: Prompts, tokenizer, texts: list[str | None], length: int, grow: bool = False
) -> Inputs:
  """AR inputs of explanations.

  Args:
    prompts: of the pair.
    tokenizer: of the base model.
    texts: explanations; None does not fit.
    length: tokens of each row; a longer text does not fit.
    grow: raise `length` to hold the longest text, in steps of 32 tokens.
  """
  empty = prompts.ar_ids(tokenizer, "")
  rows = [empty if text is None else prompts.ar_ids(tokenizer, text) for text in texts]
  longest = max(map(len, rows))
  if grow and longest > length:
    length = -(-longest // _STEP) * _STEP

  # A text that does not fit is read as an empty one, never as its beginning: half an explanation would be scored.
  fits = [text is not None and len(row) <= length for text, row in zip(texts, rows)]
  rows = [row if fit else empty for row, fit in zip(rows, fits)]
  lengths = np.array([len(row) for row in rows], np.int32)
  return Inputs(_padded(rows, length, prompts.stop_id), lengths, np.array(fits, bool))


def encode_lines(
  prompts: Prompts,
  tokenizer,
  texts: list[str | None],
  lines: int,
  length: int,
  grow: bool = False,
) -> Inputs:
  """AR inputs of the lines of explanations, each a row of its own; arguments as of `encode_inputs`.

  A text of more lines than `lines` has the rest of them in its last row.
  """
  # 1. The lines of all texts, with nothing where a text has fewer.
  parts = [_lines_of(text, lines) for text in texts]
  flat = [one for several in parts for one in (*several, *[None] * (lines - len(several)))]
  rows = encode_inputs(prompts, tokenizer, flat, length, grow)

  # 2. Of each text the rows of its lines; it fits where all of them do.
  shape = (len(texts), lines)
  there = np.arange(lines) < np.array([len(several) for several in parts])[:, None]
  fits = np.where(there, rows.fits.reshape(shape), True).all(axis=1)
  fits &= np.array([text is not None for text in texts], bool)

  # A text that does not fit is read as one empty line, and no part of it.
  tokens, lengths = rows.tokens.reshape(*shape, -1), np.where(there, rows.lengths.reshape(shape), 0)
  if not fits.all():
    empty = encode_inputs(prompts, tokenizer, [""], tokens.shape[-1])
    tokens[~fits, 0], lengths[~fits] = empty.tokens, 0
    lengths[~fits, 0] = empty.lengths
  return Inputs(tokens, lengths.astype(np.int32), fits)


def _lines_of(text: str | None, most: int) -> list[str]:
  """At most so many parts of a text: its lines that say something, and of a longer text the rest in the last."""
  found = [line for line in (text or "").split("\n") if line.strip()] or [""]
  return [*found[: most - 1], "\n".join(found[most - 1 :])] if len(found) > most else found


def ar_length(max_explanation_tokens: int, prompts: Prompts, tokenizer, multiple: int = 8) -> int:
  """Tokens of an AR input, after the shared beginning, that hold an explanation of so many tokens."""
  around = len(prompts.ar_ids(tokenizer, ""))
  # Two more, since the template's ends may split where they meet the text.
  return -(-(max_explanation_tokens + around + 2) // multiple) * multiple


def row_batches(n: int, most: int) -> list[tuple[int, int]]:
  """How `n` rows are computed with few shapes: (first row, rows with padding) of each batch, at most `most` of them."""
  sizes = [size for size in ROWS if size < most] + [most]
  found, start = [], 0
  while start < n:
    left = n - start
    size = next((size for size in sizes if size >= left), most)
    # Rather several small batches than one that is mostly padding.
    if 3 * left <= size:
      size = max(size for size in sizes if size <= left)
    found.append((start, size))
    start += size
  return found


def _padded(rows: list[list[int]], length: int, fill: int) -> np.ndarray:
  """Rows of ids as [n, length] int32, filled up on the right."""
  out = np.full((len(rows), length), fill, np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row
  return out
