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

  Returns:
    at most `per_document` indices in [minimum, n); empty for a document of at most `minimum` tokens.
  """
  special = frozenset(special_ids)
  candidates = [i for i in range(minimum, len(token_ids)) if int(token_ids[i]) not in special]

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
      doc_id, token_ids, special, seed=seed, per_document=per_document, minimum=first
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
  needed = sum(share > 0 for share in shares) + (held_out > 0)
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
