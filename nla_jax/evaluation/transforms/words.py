"""Other words, fewer words, or the same words in other letters."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from nla_jax.autoencoder.text import decode, encode
from nla_jax.evaluation.fields import fields_of, replaced, span

# Words that a sentence is built with; what it is about is said by the others.
_FUNCTION_WORDS = """
  a an the this that these those some any each every no of in on at by for from to into onto with without within
  about above below over under between among through during before after since until against toward towards upon as
  and or but nor so yet if then than because although though while whereas whether i you he she it we they me him her
  us them my your his its our their mine yours who whom whose which what where when why how is are was were be been
  being am do does did have has had having will would shall should can could may might must not there here also just
  very too only own same such both either neither more most less least much many few other another
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_WORD = re.compile(r"\w[\w'’-]*")
_TYPOGRAPHIC = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "."})
_REPEATED = re.compile(r"([^\w\s])\1+")
_TRIES = 8  # nearest tokens that are looked at for one that is a word


def drop_function_words(text: str, random: np.random.Generator) -> str:
  """The text without the words that carry grammar; labels stay."""
  gone = {}
  for field in fields_of(text):
    words = _WORD.findall(field.content.text)
    kept = [word for word in words if word.lower() not in FUNCTION_WORDS]

    # A field of nothing else (`Next: the, of`) would be no field any more.
    if not kept:
      continue
    for match in _WORD.finditer(field.content.text):
      if match.group().lower() in FUNCTION_WORDS:
        start = field.content.start + match.start()
        gone[start, start + len(match.group())] = ""
  return tidy(replaced(text, gone))


def normalise(text: str, random: np.random.Generator) -> str:
  """Small letters, plain quotation marks and dashes, no punctuation twice, no full stop at the end of a line.

  Labels keep their capitals: they are the form, not a choice.
  """
  parts = {}
  for field in fields_of(text):
    plain = field.content.text.translate(_TYPOGRAPHIC).lower()
    plain = _REPEATED.sub(r"\1", plain)
    bare = plain[:-1].rstrip() if plain.endswith((".", "!", "?")) and plain[:-1].strip() else plain
    parts[field.content.start, field.content.end] = " ".join(bare.split())
  return replaced(text, parts)


def round_trip(texts: Sequence[str | None], tokenizer) -> list[str | None]:
  """Texts through the tokenizer and back: what changes here is no word's fault."""
  return [text and decode(tokenizer, encode(tokenizer, text)) for text in texts]


def first_tokens(texts: Sequence[str | None], tokenizer, n: int) -> list[str | None]:
  """The first n tokens of each text."""
  return [text and decode(tokenizer, encode(tokenizer, text)[:n]).rstrip() for text in texts]


def swap_neighbours(
  texts: Sequence[str | None],
  tokenizer,
  nearest: Callable[[Sequence[int]], np.ndarray],
  rate: float,
  seed: int,
) -> list[str | None]:
  """Texts with a share of their tokens replaced by the nearest one that is another word.

  Args:
    texts: explanations; None stays None.
    tokenizer: of the AR.
    nearest: from token ids to their nearest ones in the embedding table, [tokens, k], the nearest first.
    rate: share of the tokens of letters that is replaced.
    seed: of the choice; that of a text depends on its place alone.
  """
  # All tokens are looked up at once: the table is large.
  rows = [encode(tokenizer, text) if text else [] for text in texts]
  word = {token: _letters(tokenizer, token) for row in rows for token in row}
  chosen = []
  for i, row in enumerate(rows):
    drawn = np.random.default_rng((seed, i)).random(len(row)) < rate
    chosen.append([j for j, token in enumerate(row) if drawn[j] and word[token]])
  wanted = sorted({rows[i][j] for i, places in enumerate(chosen) for j in places})
  if not wanted:
    return list(texts)

  other = {}
  for token, candidates in zip(wanted, nearest(wanted)[:, :_TRIES]):
    # "the" and "The" are neighbours, and the same word.
    others = [
      int(one) for one in candidates if _letters(tokenizer, int(one)) not in ("", word[token])
    ]
    other[token] = others[0] if others else token

  swapped = []
  for text, row, places in zip(texts, rows, chosen):
    new = [other[token] if j in places else token for j, token in enumerate(row)]
    swapped.append(text and (decode(tokenizer, new) if places else text))
  return swapped


def _letters(tokenizer, token: int) -> str:
  """A token in small letters, without blanks; "" where it holds anything but letters."""
  word = decode(tokenizer, [token]).strip().lower()
  return word if word.isalpha() else ""


def tidy(text: str) -> str:
  """The text without the blanks and separators of words that are gone."""
  parts = {}
  for field in fields_of(text):
    content = re.sub(r"(?:,\s*)+,", ",", field.content.text)
    content = re.sub(r"\s+([,.;:!?])", r"\1", content).strip(" ,")
    content = re.sub(r'"\s+|\s+"$', '"', content) if content.startswith('"') else content
    parts[field.content.start, field.content.end] = " ".join(content.split())
  tidy = replaced(text, parts)
  return span(tidy, 0, len(tidy)).text
