"""The rules of selection: which tokens become activations, and which split a group of documents belongs to.

Both rules depend on names and seeds alone, and know neither files, configs nor processes; `nla_jax.data.selection`
applies them to a corpus. The generators are those of `docs/interchange.md`, so a corpus cut into any shards, here or
by the reference code, gives the same rows.
"""

import hashlib
import random
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from nla_jax.errors import NLAError

HELD_OUT = "held_out"
FRACTIONS = (("av_sft", 0.25), ("ar_sft", 0.25), ("rl", 0.5))
SPLITS = (HELD_OUT, *(name for name, _ in FRACTIONS))


def choose_positions(
  doc_id: str,
  token_ids: Sequence[int],
  special_ids: Collection[int],
  *,
  seed: int = 42,
  per_document: int = 10,
  minimum: int = 50,
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
    allowed: [n] bool, which may be chosen besides; None for all.

  Returns:
    at most `per_document` indices in [minimum, n); empty for a document of at most `minimum` tokens.
  """
  special = frozenset(special_ids)
  candidates = [i for i in range(minimum, len(token_ids)) if int(token_ids[i]) not in special]
  if allowed is not None:
    candidates = [i for i in candidates if allowed[i]]

  # SHA-256, not `hash`, which Python salts in every process.
  generator = random.Random(hashlib.sha256(f"{seed}|{doc_id}".encode()).digest())
  return sorted(generator.sample(candidates, min(per_document, len(candidates))))


def words_begin(token_ids: Sequence[int], opening: Sequence[int]) -> int:
  """Returns where the words of a document begin: behind `opening` where it begins with that, at 0 otherwise."""
  begins = list(token_ids[: len(opening)]) == list(opening)
  return len(opening) if begins else 0


def choose_rows(
  documents: Iterable[tuple[str, Sequence[int]]],
  special_ids: Collection[int],
  *,
  seed: int = 42,
  per_document: int = 10,
  minimum: int = 50,
  opening: Sequence[int] = (),
  allowed: Sequence[np.ndarray | None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows of a whole corpus, ordered by document, then position.

  Args:
    documents: (id, token ids) of each document.
    special_ids: ids that are never chosen.
    seed: of the corpus.
    per_document: rows a document at most.
    minimum: the first index that may be chosen.
    opening: token ids; in a document that begins with them `minimum` counts from behind them. After the beginning that
      a chat template writes, activations are the same in every conversation, held-out ones too.
    allowed: of each document, which tokens may be chosen; None for all.

  Returns:
    document index [N] int32 and position [N] int32.

  Raises:
    NLAError: no document is longer than `minimum` tokens.
  """
  special = frozenset(special_ids)
  rows, longest, count = [], 0, 0
  for index, (doc_id, token_ids) in enumerate(documents):
    first = minimum + words_begin(token_ids, opening)
    chosen = choose_positions(
      doc_id,
      token_ids,
      special,
      seed=seed,
      per_document=per_document,
      minimum=first,
      allowed=None if allowed is None else allowed[index],
    )
    rows.extend((index, position) for position in chosen)
    longest, count = max(longest, len(token_ids)), count + 1

  if not rows:
    raise NLAError(
      f"none of the {count} documents has a position to take: the longest has {longest} tokens and the "
      f"first position is {minimum}; give longer documents or a smaller minimum position"
    )

  # Each column by itself in memory: as views of the pairs, every later read would stride over the other.
  document, position = np.asarray(rows, np.int32).T
  return np.ascontiguousarray(document), np.ascontiguousarray(position)


def splits_needed(held_out: float, fractions: Sequence[tuple[str, float]] = FRACTIONS) -> int:
  """Returns how many splits there are, which is the least number of groups."""
  return sum(share > 0 for _, share in fractions) + (held_out > 0)


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
  joined: dict[str, str] = {}

  def first_of(name: str) -> str:
    first = name
    while first in joined:
      first = joined[first]
    # The way is cut short, or many copies under falling names would be a walk through all of them each time.
    while name != first:
      joined[name], name = first, joined[name]
    return first

  # Hashes, since a corpus of long documents would not be in memory twice.
  seen: dict[bytes, str] = {}
  for group, tokens in zip(groups, documents, strict=True):
    mark = hashlib.sha256(np.asarray(tokens, np.int32).tobytes()).digest()
    low, high = sorted((first_of(group), first_of(seen.setdefault(mark, group))))
    if low != high:
      joined[high] = low
  found, copies = [first_of(group) for group in groups], len(groups) - len(seen)
  return (found if len(set(found)) >= at_least else list(groups)), copies


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
    document: [N] of each row, as `choose_rows` gives them.
    position: [N] of each row.
    held_out: [N] bool.
  """
  contexts, last, read, state = [], -1, 0, hashlib.sha256()
  for i, at in zip(document.tolist(), position.tolist(), strict=True):
    if i != last:
      last, read, state = i, 0, hashlib.sha256()
    # Positions of a document ascend, so that each token is hashed once.
    state.update(np.asarray(documents[i][read : at + 1], np.int32).tobytes())
    read = at + 1
    contexts.append(state.digest())

  trained = {one for one, held in zip(contexts, held_out.tolist(), strict=True) if not held}
  return sum(one in trained for one, held in zip(contexts, held_out.tolist(), strict=True) if held)


def split_groups(
  groups: Iterable[str],
  *,
  seed: int = 42,
  held_out: float = 0.1,
  fractions: Sequence[tuple[str, float]] = FRACTIONS,
) -> dict[str, str]:
  """Returns the split of each group: held-out groups are cut first, then the rest is shuffled and cut.

  1. Held-out groups are drawn by a generator of their own, so which they are does not depend on `fractions`.
  2. The rest is shuffled and cut at the cumulative shares, as `docs/interchange.md` says.

  No split stays empty: where rounding leaves one so, it gets a group of the largest.

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
  shares = [share for _, share in fractions]

  # 1e-6: shares such as 0.1 do not add to 1 exactly.
  if not 0 <= held_out < 1 or any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
    raise NLAError(
      f"the splits are held_out {held_out} and {dict(fractions)}; held_out must be in [0, 1) and the "
      "others at least 0, adding to 1"
    )
  needed = splits_needed(held_out, fractions)
  if len(names) < needed:
    raise NLAError(
      f"the corpus has {len(names)} group(s) and {needed} splits; give at least {needed} groups "
      "(a group is a document, or what the corpus names as its group)"
    )

  # 1. Held-out groups. At most so many that each other split can have one.
  generator = random.Random(hashlib.sha256(f"{seed}|{HELD_OUT}".encode()).digest())
  order = list(names)
  generator.shuffle(order)
  wanted = max(1, round(held_out * len(names))) if held_out > 0 else 0
  most = len(names) - (needed - (held_out > 0))
  cut = set(order[: min(wanted, most)])

  # 2. The rest, from the sorted names, so that the order in which groups come does not matter.
  rest = [name for name in names if name not in cut]
  random.Random(seed).shuffle(rest)

  splits = dict.fromkeys(sorted(cut), HELD_OUT)
  start = 0
  for (split, _), size in zip(fractions, _sizes(len(rest), shares), strict=True):
    splits.update(dict.fromkeys(rest[start : start + size], split))
    start += size
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
