"""Explanations and activations as fixed-shape token rows: what the AV answers and what the AR reads."""

from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.prompts import Prompts


class Answers(NamedTuple):
  """Rows for the AV. tokens [n, length] int32, padded with the stop id; mask [n, length] bool, True at real tokens."""

  tokens: np.ndarray
  mask: np.ndarray


class Inputs(NamedTuple):
  """Rows for the AR, after the shared beginning. tokens [n, length] int32; lengths [n] int32; fits [n] bool."""

  tokens: np.ndarray
  lengths: np.ndarray
  fits: np.ndarray


def _pad(rows: list[list[int]], length: int, fill: int) -> np.ndarray:
  out = np.full((len(rows), length), fill, np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row
  return out


def encode_answers(prompts: Prompts, tokenizer, texts: list[str], multiple: int = 8) -> Answers:
  """Supervised answers of all texts, padded to their longest (rounded up, so there is one shape to compile)."""
  rows = [prompts.answer_ids(tokenizer, text) for text in texts]
  length = -(-max(map(len, rows)) // multiple) * multiple
  mask = np.arange(length)[None] < np.array([len(row) for row in rows])[:, None]
  return Answers(_pad(rows, length, prompts.stop_id), mask)


def encode_inputs(
  prompts: Prompts, tokenizer, texts: list[str | None], length: int, grow: bool = False
) -> Inputs:
  """AR inputs. A text that is None or longer than `length` tokens does not fit; its row reads an empty explanation.

  With `grow`, `length` is raised to hold the longest text (in steps of 32 tokens, so that few shapes are compiled).
  """
  empty = prompts.ar_ids(tokenizer, "")
  rows = [empty if text is None else prompts.ar_ids(tokenizer, text) for text in texts]
  if grow and max(map(len, rows)) > length:
    length = -(-max(map(len, rows)) // 32) * 32
  fits = np.array([text is not None and len(row) <= length for text, row in zip(texts, rows)], bool)
  rows = [row if fit else empty for row, fit in zip(rows, fits)]
  return Inputs(
    _pad(rows, length, prompts.stop_id), np.array([len(row) for row in rows], np.int32), fits
  )


def ar_length(max_explanation_tokens: int, prompts: Prompts, tokenizer, multiple: int = 8) -> int:
  """Tokens of an AR input after the shared beginning that hold an explanation of so many tokens."""
  around = len(prompts.ar_ids(tokenizer, ""))
  return -(-(max_explanation_tokens + around + 2) // multiple) * multiple
