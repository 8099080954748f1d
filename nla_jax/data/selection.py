"""Selection: what of a corpus is extracted. Documents are tokenised, positions chosen, splits drawn.

`nla_jax.data.positions` holds the rules, as functions of names and seeds; this module applies them to a corpus, with a
config and a tokenizer. Each process reads, cleans and tokenises its blocks of the corpus into files that all share
(`nla_jax.data.blocks`). What splits need of a document is a mark and a few numbers: these alone every process holds of
all documents, and draws from them what one process alone would have drawn.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from nla_jax import files
from nla_jax.data.blocks import COUNT, RECORDS, Blocks
from nla_jax.data.corpora.document import no_document, repeated_id
from nla_jax.data.corpora.mixture import draw, read_weights
from nla_jax.data.corpora.read import read_blocks, source_files, source_names
from nla_jax.data.known import Known, count_twins, read_known
from nla_jax.data.left_out import Counts, Part, notes
from nla_jax.data.positions import (
  FRACTIONS,
  MARK,
  SPLITS,
  join_numbers,
  mark,
  split_numbers,
  splits_needed,
)
from nla_jax.data.reading_corpus import count_documents, tokenise
from nla_jax.data.roles import check_positions
from nla_jax.data.selected import Selection
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed

_FORM = 1  # of the blocks; another one is not read


def select(config, tokenizer, folder: str, tokenizer_hash: str | None = None) -> Selection:
  """Reads and tokenises the corpus, then chooses positions and splits.

  1. Documents are drawn where the config limits their number. 2. Each process tokenises its blocks of them, chooses
  positions and leaves the short ones out. 3. Groups that share a text are joined, then split, held-out groups first.

  Args:
    config: the run's.
    tokenizer: the target's.
    folder: path or KvStore URL that all processes share, for the blocks; they are read as long as the selection is.
    tokenizer_hash: of the tokenizer. Blocks that a stopped call for the same config, hash and corpus has written there
      are taken as they are, however many processes that had; None begins anew.

  Raises:
    NLAError: the corpus cannot be read, or holds nothing long enough; in every process where it is so in one.
    PreemptedError: the process was asked to stop; the blocks that are written stay.
  """
  weights = read_weights(config.corpus, config.data.weights)
  check_positions(config.data)
  blocks = _open_blocks(config, tokenizer, folder, tokenizer_hash)

  # 1. Drawn by place in the whole corpus, so the number of processes does not change the draw.
  drawn = None
  if config.data.max_documents or weights:
    count = count_documents(blocks, config.corpus)
    counts = distributed.together("count", lambda: _count(config.corpus, blocks, count))
    drawn = draw(counts, config.data.max_documents, config.seed, weights)
    drawn = np.array(drawn if isinstance(drawn, range) else sorted(drawn), np.int64)

  # 2. Behind it all blocks are there, for every process.
  count = tokenise(blocks, config, tokenizer, drawn)
  if drawn is None:
    counts = distributed.together("count", lambda: _count(config.corpus, blocks, count))
  found = distributed.together("read its blocks", lambda: read_known(blocks, count))

  # 3. All do the same with the same numbers.
  of_drawn = counts
  if drawn is not None:
    ends = np.searchsorted(drawn, np.cumsum(counts))
    of_drawn = np.diff(ends, prepend=0).tolist()
  _refuse_unusable(config, found, sum(of_drawn))
  parts = _parts(config.corpus, counts, of_drawn, found)
  group, split, counts = _split_up(config, blocks, found, sum(of_drawn))
  return Selection(blocks, found, group, split, counts, parts)


def _open_blocks(config, tokenizer, folder: str, tokenizer_hash: str | None) -> Blocks:
  """Opens the folder of the blocks of this corpus, cut in this way; an empty one where nothing may be taken up."""
  index, processes = distributed.process()
  data = config.data
  keys = ("max_documents", "weights", "max_tokens", "position_minimum", "positions_per_document")
  made_from = {
    "form": [_FORM, RECORDS],
    "corpus": config.corpus,
    "files": source_files(config.corpus),
    "seed": config.seed,
    "tokenizer": tokenizer_hash or f"unknown, {processes} processes",
    "template": tokenizer.chat_template,
    **{key: data[key] for key in (*keys, "roles", "last_of_turn", "group_by")},
  }

  digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).digest()[:8]
  # The first process's: a copy of the corpus on another machine may have another time of change.
  digest = distributed.gather_rows(np.frombuffer(digest, np.uint32)[None])[0]

  path = files.below(folder, digest.tobytes().hex())
  if tokenizer_hash is None and index == 0:
    files.remove_all(path)
  distributed.wait("blocks opened")
  return Blocks(path)


def _count(corpus: str, blocks: Blocks, count: int) -> list[int]:
  """Returns how many documents each source has. Raises NLAError where one has none, or two have one id."""
  names = source_names(corpus)
  counts, ids = np.zeros(len(names), np.int64), [np.zeros(0, MARK)]
  for block in range(count):
    found = blocks.read(COUNT, block)
    counts += np.bincount(found["source"], minlength=len(names))
    ids.append(found["id"])
  if 0 in counts:
    raise no_document(names[counts.tolist().index(0)] or corpus)

  ids = np.concatenate(ids)
  ids.sort()
  twice = ids[1:][ids[1:] == ids[:-1]]
  if len(twice):
    raise repeated_id(corpus, _named(corpus, twice[0]))
  return counts.tolist()


def _named(corpus: str, wanted: bytes) -> str:
  """Returns the id of a mark: the corpus is read once more for it."""
  parsed = (parse() for _, records in read_blocks(corpus, RECORDS) for parse in records)
  return next(
    one.id
    for documents in parsed
    for one in documents
    if np.array(mark(one.id.encode()), MARK) == wanted
  )


def _refuse_unusable(config, found: Known, drawn: int) -> None:
  """Raises NLAError where the corpus, or one of its sources, has no long document, or no token may be taken."""
  data, names = config.data, source_names(config.corpus)
  if not len(found.source):
    raise NLAError(
      f"none of the {drawn} documents of {config.corpus} has more than {data.position_minimum} "
      f"tokens (the longest has {found.longest}); lower --config.data.position_minimum "
      "or give longer documents"
    )
  missing = np.setdiff1d(np.arange(len(names)), found.source)
  if len(missing):
    raise NLAError(
      f"none of the documents drawn of {names[missing[0]]} has more than {data.position_minimum} tokens; lower "
      f"--config.data.position_minimum, or leave it out of --config.corpus={config.corpus}"
    )

  asked = f"config.data.roles={data.roles!r}, config.data.last_of_turn={data.last_of_turn}"
  picks = bool(data.roles or data.last_of_turn)
  if picks and not found.roles:
    raise NLAError(f"{asked}: the corpus {config.corpus} holds no conversation; leave them out")
  if not found.rows.any():
    others = f"; {asked}: other tokens are left out" if picks else ""
    raise NLAError(
      f"none of the {len(found.rows)} documents has a position to take: the longest has {found.length.max()} tokens "
      f"and the first position is {data.position_minimum}; give longer documents or a smaller minimum position{others}"
    )


def _split_up(
  config, blocks: Blocks, found: Known, drawn: int
) -> tuple[np.ndarray, np.ndarray, Counts]:
  """Draws the splits and counts what was left out.

  Args:
    config: the run's.
    blocks: of the corpus.
    found: what is known of it.
    drawn: documents of the corpus that were looked at.

  Returns:
    group and split of each document, as `Selection` takes them, and what was counted.

  Raises:
    NLAError: there are fewer groups than splits, or a split has no row.
  """
  # 1. Splits are of groups: paragraphs of one article in two splits would leak its subject, and copies all of it.
  data = config.data
  fractions = [(name, data[name]) for name, _ in FRACTIONS]
  group, copies = join_numbers(found.group, found.text, splits_needed(data.held_out, fractions))
  groups, number = np.unique(group, return_inverse=True)
  counts = Counts(
    drawn=drawn,
    too_short=drawn - len(group),
    minimum=data.position_minimum,
    without_rows=int((found.rows == 0).sum()),
    copies=copies,
    groups_joined=len(found.names) - len(groups),
  )
  try:
    split_of_groups = split_numbers(len(groups), config.seed, data.held_out, fractions)
  except NLAError as error:
    # With what made them so few.
    raise NLAError("; ".join([str(error), *notes(counts)])) from error
  split = split_of_groups[number]

  # 2. What is held out, and what of it is known from training all the same.
  twins = distributed.together("compare contexts", lambda: count_twins(blocks, found, split == 0))
  twins = int(np.concatenate(distributed.gather_rows(np.array([twins], np.int32))).sum())
  sizes = np.bincount(split_of_groups, minlength=len(SPLITS)).tolist()
  counts = counts._replace(
    twins=twins,
    held_out_rows=int(found.rows[split == 0].sum(dtype=np.int64)),
    groups={name: size for name, size in zip(SPLITS, sizes, strict=True) if size},
  )
  _refuse_empty_splits(split[found.rows > 0], counts)
  return group, split, counts


def _refuse_empty_splits(of_rows: np.ndarray, counts: Counts) -> None:
  """Raises NLAError where a split has documents and no row: none of their tokens may be taken."""
  empty = [split for split in counts.groups if SPLITS.index(split) not in of_rows]
  if empty:
    raise NLAError(
      f"no token of the documents of the split {empty[0]} may be taken, so it has no row: give more or longer "
      f"documents; {'; '.join(notes(counts))}"
    )


def _parts(
  corpus: str, counts: Sequence[int], drawn: Sequence[int], found: Known
) -> Mapping[str, Part]:
  """What each source of a corpus of several gave; empty for a corpus of one."""
  names = source_names(corpus)
  if len(names) == 1:
    return {}
  kept = np.bincount(found.source, minlength=len(names)).tolist()
  rows = np.bincount(found.source, found.rows, minlength=len(names)).astype(np.int64).tolist()
  return {name: Part(counts[i], drawn[i], kept[i], rows[i]) for i, name in enumerate(names)}
