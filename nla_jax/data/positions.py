"""The rules of selection: which tokens become activations, and which split a group of documents belongs to.

Both rules depend on names and seeds alone, and know neither files, configs nor processes; `nla_jax.data.selection`
applies them to a corpus. The generators are those of `docs/interchange.md`, so a corpus cut into any shards, here or
by the reference code, gives the same rows.
"""

import array
import hashlib
import random
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from nla_jax.errors import NLAError

HELD_OUT = "held_out"
FRACTIONS = (("av_sft", 0.25), ("ar_sft", 0.25), ("rl", 0.5))
SPLITS = (HELD_OUT, *(name for name, _ in FRACTIONS))
MARK = "S16"  # numpy's type of what `mark` gives


def choose_positions(
  doc_id: str,
  token_ids: Sequence[int],
  special_ids: Collection[int],
  *,
  seed: int = 42,
  per_document: int = 10,
  minimum: int = 50,
  opening: Sequence[int] = (),
  allowed: np.ndarray | None = None,
) -> list[int]:
  """Returns token indices of one document, ascending, drawn without replacement.

  The generator is seeded by the document's id and the corpus's seed, so no other document changes the choice.

  Args:
    doc_id: the document's id.
    token_ids: [n] its tokens, as the target sees them.
    special_ids: ids that are never chosen.
    seed: of the corpus.
    per_document: how many; a document with fewer candidates gives all of them.
    minimum: the first index that may be chosen, so every row has at least minimum + 1 tokens of context.
    opening: token ids; in a document that begins with them `minimum` counts from behind them. After the beginning that
      a chat template writes, activations are the same in every conversation, held-out ones too.
    allowed: [n] bool, which may be chosen besides; None for all.

  Returns:
    at most `per_document` indices in [minimum, n); empty for a document of at most `minimum` tokens.
  """
  special = frozenset(special_ids)
  first = minimum + words_begin(token_ids, opening)
  candidates = [i for i in range(first, len(token_ids)) if int(token_ids[i]) not in special]
  if allowed is not None:
    candidates = [i for i in candidates if allowed[i]]

  # SHA-256, not `hash`, which Python salts in every process.
  generator = random.Random(hashlib.sha256(f"{seed}|{doc_id}".encode()).digest())
  return sorted(generator.sample(candidates, min(per_document, len(candidates))))


def words_begin(token_ids: Sequence[int], opening: Sequence[int]) -> int:
  """Returns where the words of a document begin: behind `opening` where it begins with that, at 0 otherwise."""
  begins = list(token_ids[: len(opening)]) == list(opening)
  return len(opening) if begins else 0


def splits_needed(held_out: float, fractions: Sequence[tuple[str, float]] = FRACTIONS) -> int:
  """Returns how many splits there are, which is the least number of groups."""
  return sum(share > 0 for _, share in fractions) + (held_out > 0)


def mark(content: bytes) -> bytes:
  """Returns what stands for some bytes where all of a corpus are compared: the first 16 of their SHA-256."""
  return hashlib.sha256(content).digest()[:16]


def text_mark(token_ids: Sequence[int]) -> bytes:
  """Returns the mark of a document's tokens: copies have the same one."""
  return mark(np.asarray(token_ids, np.int32).tobytes())


def context_marks(token_ids: Sequence[int], positions: Sequence[int]) -> list[bytes]:
  """Returns the mark of the context of each row of a document: its tokens up to the row's, positions ascending."""
  marks, read, state = [], 0, hashlib.sha256()
  for at in positions:
    # Each token is hashed once.
    state.update(np.asarray(token_ids[read : at + 1], np.int32).tobytes())
    read = at + 1
    marks.append(state.digest()[:16])
  return marks


def join_copies(
  groups: Sequence[str], documents: Sequence[Sequence[int]], at_least: int = 1
) -> tuple[list[str], int]:
  """Returns the group of each document when groups that share a text are one, and how many documents are copies.

  Of a text that is there under several names, one would be held out and the other trained on. Documents of the same
  tokens are copies; what was cut off behind them the target does not see. Without copies groups stay as they are.

  Args:
    groups: of each document.
    documents: token ids of each, as the target sees them.
    at_least: groups that are needed. Where fewer would be left, all stay as they are: such a corpus is a toy, and its
      copies are counted.

  Returns:
    [documents] names, the first in the alphabet of groups that are joined; and the documents that repeat another.
  """
  names, numbers = np.unique(np.array(groups, object), return_inverse=True)
  marks = np.array([text_mark(tokens) for tokens in documents], MARK)
  joined, copies = join_numbers(numbers, marks, at_least)
  return names[joined].tolist(), copies


def join_numbers(group: np.ndarray, marks: np.ndarray, at_least: int) -> tuple[np.ndarray, int]:
  """Does what `join_copies` does, for groups that are numbered in the order of their names.

  Args:
    group: [documents] int.
    marks: [documents] MARK, `text_mark` of each.
    at_least: as there.

  Returns:
    [documents] int, the least number of groups that are joined; and the documents that repeat another.
  """
  _, first, text = np.unique(marks, return_index=True, return_inverse=True)
  copies, other = len(group) - len(first), group[first[text]]
  apart = np.flatnonzero(group != other)
  # An array of numbers, which as Python's own would take three times as much.
  joined = array.array("q", range(int(group.max(initial=-1)) + 1))

  def first_of(one: int) -> int:
    least = one
    while joined[least] != least:
      least = joined[least]
    # The way is cut short, or many copies under falling names would be a walk through all of them each time.
    while one != least:
      joined[one], one = least, joined[one]
    return least

  for i in apart:
    low, high = sorted((first_of(int(group[i])), first_of(int(other[i]))))
    joined[high] = low

  # Ways lead down alone, and are at their ends when a step more changes nothing.
  ends = np.array(joined, np.int64)
  while not np.array_equal(ends[ends], ends):
    ends = ends[ends]
  found = ends[group].astype(group.dtype)
  return (found if len(np.unique(found)) >= at_least else group), copies


def count_twins(
  documents: Sequence[Sequence[int]],
  document: np.ndarray,
  position: np.ndarray,
  held_out: np.ndarray,
) -> int:
  """Returns how many held-out rows have the context of a row that is trained on, token for token.

  Their activations are the same, since a target sees nothing behind a position. Documents that begin alike have such.

  Args:
    documents: token ids of each.
    document: [N] of each row, ascending.
    position: [N] of each row, ascending within a document.
    held_out: [N] bool.
  """
  marks, ends = [], np.searchsorted(document, np.arange(len(documents)), side="right").tolist()
  for tokens, begin, end in zip(documents, [0, *ends[:-1]], ends, strict=True):
    marks += context_marks(tokens, position[begin:end].tolist())
  contexts = np.array(marks, MARK)
  return int(np.isin(contexts[held_out], contexts[~held_out]).sum())


def split_groups(
  groups: Iterable[str],
  *,
  seed: int = 42,
  held_out: float = 0.1,
  fractions: Sequence[tuple[str, float]] = FRACTIONS,
) -> dict[str, str]:
  """Returns the split of each group, as `split_numbers` draws it of their names in the order of the alphabet.

  Args:
    groups: names, repeats allowed, in any order.
    seed: of the corpus.
    held_out: share of the groups in [0, 1); at least one group where it is not 0.
    fractions: (split, share of the rest) in the order of cutting; shares add to 1.

  Returns:
    {group: split}, the held-out split under "held_out".

  Raises:
    NLAError: the shares do not add to 1, or there are fewer groups than splits.
  """
  names = sorted(set(groups))
  split_names = (HELD_OUT, *(name for name, _ in fractions))
  numbers = split_numbers(len(names), seed, held_out, fractions)
  return {name: split_names[i] for name, i in zip(names, numbers.tolist(), strict=True)}


def split_numbers(
  count: int, seed: int, held_out: float, fractions: Sequence[tuple[str, float]] = FRACTIONS
) -> np.ndarray:
  """Returns the split of each of `count` groups: held-out groups are cut first, then the rest is shuffled and cut.

  1. Held-out groups are drawn by a generator of their own, so which they are does not depend on `fractions`.
  2. The rest is shuffled and cut at the cumulative shares, as `docs/interchange.md` says.

  No split stays empty: where rounding leaves one so, it gets a group of the largest.

  Args:
    count: of the groups, numbered in the order of their names.
    seed: as of `split_groups`, like what follows.
    held_out: likewise.
    fractions: likewise.

  Returns:
    [count] int8, 0 for held out, then the number of the fraction from 1 on.

  Raises:
    NLAError: the shares do not add to 1, or there are fewer groups than splits.
  """
  shares = [share for _, share in fractions]
  # 1e-6: shares such as 0.1 do not add to 1 exactly.
  if not 0 <= held_out < 1 or any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
    raise NLAError(
      f"the splits are held_out {held_out} and {dict(fractions)}; held_out must be in [0, 1) and the "
      "others at least 0, adding to 1"
    )
  needed = splits_needed(held_out, fractions)
  if count < needed:
    raise NLAError(
      f"the corpus has {count} group(s) and {needed} splits; give at least {needed} groups "
      "(a group is a document, or what the corpus names as its group)"
    )

  # 1. Held-out groups. At most so many that each other split can have one.
  generator = random.Random(hashlib.sha256(f"{seed}|{HELD_OUT}".encode()).digest())
  order = array.array("q", range(count))
  generator.shuffle(order)
  wanted = max(1, round(held_out * count)) if held_out > 0 else 0
  most = count - (needed - (held_out > 0))
  splits = np.full(count, -1, np.int8)
  splits[np.array(order[: min(wanted, most)], np.int64)] = 0

  # 2. The rest, from the sorted names, so that the order in which groups come does not matter.
  rest = array.array("q", np.flatnonzero(splits).tobytes())
  random.Random(seed).shuffle(rest)
  sizes = _sizes(len(rest), shares)
  splits[np.array(rest, np.int64)] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
  return splits


def _sizes(total: int, shares: Sequence[float]) -> list[int]:
  """Cuts `total` at the rounded-down cumulative shares; then no share above 0 is left without one."""
  bounds = [0]
  for share in shares:
    bounds.append(bounds[-1] + share)

  # 1e-9: 100 × 0.29 is 28.999999999999996 in floating point, and 29 is meant.
  ends = [int(total * bound + 1e-9) for bound in bounds[1:-1]] + [total]
  sizes = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]

  for i, share in enumerate(shares):
    if share > 0 and sizes[i] == 0:
      sizes[sizes.index(max(sizes))] -= 1
      sizes[i] = 1
  return sizes
