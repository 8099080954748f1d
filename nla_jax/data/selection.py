"""Selection: what of a corpus is extracted. Documents are tokenised, positions chosen, splits drawn.

`nla_jax.data.positions` holds the rules, as functions of names and seeds; this module applies them to a corpus, with a
config and a tokenizer. With several processes each reads, cleans and tokenises its part of the corpus; the tokens then
meet in files beside the store, and every process holds what one process alone would have made.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.chat import TemplateError, render
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.autoencoder.turns import opening
from nla_jax.data.between_processes import find_places, gather_documents
from nla_jax.data.corpora.document import Document
from nla_jax.data.corpora.mixture import draw, read_weights
from nla_jax.data.corpora.read import read_part, source_names
from nla_jax.data.left_out import Counts, Part, notes
from nla_jax.data.positions import (
  FRACTIONS,
  HELD_OUT,
  choose_rows,
  count_twins,
  join_copies,
  split_groups,
  splits_needed,
)
from nla_jax.data.roles import allowed, check_positions, roles_of
from nla_jax.data.store.documents import StoredDocument
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed


class Selection(NamedTuple):
  """What will be extracted, known before the model runs.

  Attributes:
    documents: as the target sees them, with their split.
    document: [N] int32, which document each row is from.
    position: [N] int32, index of the row's token.
    counts: of what was left out or put together, and why; see `notes`.
    conversations: whether a document was written by the chat template.
    parts: {source: what was drawn of it}, of a corpus of several.
  """

  documents: list[StoredDocument]
  document: np.ndarray
  position: np.ndarray
  counts: Counts
  conversations: bool = False
  parts: Mapping[str, Part] = {}


def select(config, tokenizer, folder: str) -> Selection:
  """Reads and tokenises the corpus, then chooses positions and splits.

  1. Each process reads its part of the corpus.
  2. Documents are drawn where the config limits their number, tokenised, and the short ones left out.
  3. The documents of all processes meet. 4. Positions are chosen.
  5. Groups that share a text are joined, then split, held-out groups first.

  Args:
    config: the run's.
    tokenizer: the target's.
    folder: path or KvStore URL that all processes share, for their tokens on the way; empty afterwards.

  Raises:
    NLAError: the corpus cannot be read, or holds nothing long enough; in every process where it is so in one.
  """
  data = config.data
  weights = read_weights(config.corpus, data.weights)
  check_positions(data)

  # 1. Together: where one process meets a bad line, the others would wait for it for ever.
  index, count = distributed.process()
  part = distributed.together(
    "read its part of the corpus", lambda: list(read_part(config.corpus, index, count))
  )
  place, counts = find_places(config.corpus, part)

  # 2. Drawn by place in the whole corpus, so the number of processes does not change the draw.
  drawn = draw(counts, data.max_documents, config.seed, weights)
  mine = [
    (i, document) for i, (_, document) in zip(place.tolist(), part, strict=True) if i in drawn
  ]
  kept, longest = distributed.together(
    "tokenise its part of the corpus", lambda: _tokenise(mine, tokenizer, config)
  )

  # 3. Every process now has the documents of all, or raises as the others do.
  documents = gather_documents(kept, folder)
  _refuse_too_short(config, documents, len(drawn), longest)

  # 4. Positions.
  document, position = _choose(config, documents, tokenizer)

  # 5. Splits. Whether a template wrote anything is known to the process that read it.
  talks = np.array([any(one.messages for _, one in mine)])
  conversations = bool(np.concatenate(distributed.gather_rows(talks)).any())
  found = _split_up(config, documents, document, position, len(drawn))
  parts = _parts(config.corpus, counts, drawn, found)
  return found._replace(conversations=conversations, parts=parts)


def _choose(
  config, documents: Sequence[StoredDocument], tokenizer
) -> tuple[np.ndarray, np.ndarray]:
  """Returns document and position of each row. Raises NLAError where no token may be taken."""
  data = config.data
  asked = f"config.data.roles={data.roles!r}, config.data.last_of_turn={data.last_of_turn}"
  picks = bool(data.roles or data.last_of_turn)
  if picks and all(one.roles is None for one in documents):
    raise NLAError(f"{asked}: the corpus {config.corpus} holds no conversation; leave them out")
  try:
    return choose_rows(
      [(one.id, one.tokens) for one in documents],
      special_tokens(tokenizer),
      seed=config.seed,
      per_document=data.positions_per_document,
      minimum=data.position_minimum,
      opening=opening(tokenizer),
      allowed=[allowed(one.roles, data) for one in documents],
    )
  except NLAError as error:
    raise NLAError(
      f"{error}; {asked}: other tokens are left out" if picks else str(error)
    ) from error


def _parts(
  corpus: str, counts: Sequence[int], drawn: Collection[int], found: "Selection"
) -> dict[str, Part]:
  """What each source of a corpus of several gave; empty for a corpus of one."""
  names, ends = source_names(corpus), np.cumsum(counts)
  if len(names) == 1:
    return {}
  of_drawn = np.searchsorted(ends, np.array(sorted(drawn)), side="right")
  kept = Counter(one.source for one in found.documents)
  rows = Counter(found.documents[i].source for i in found.document.tolist())
  return {
    name: Part(counts[i], int((of_drawn == i).sum()), kept[name], rows[name])
    for i, name in enumerate(names)
  }


def _split_up(
  config, documents: list[StoredDocument], document: np.ndarray, position: np.ndarray, drawn: int
) -> Selection:
  """Draws the splits and counts what was left out.

  Args:
    config: the run's.
    documents: without a split.
    document: [N] of each row.
    position: [N] of each row.
    drawn: documents of the corpus that were looked at.

  Raises:
    NLAError: there are fewer groups than splits, or a split has no row.
  """
  # 1. Splits are of groups: paragraphs of one article in two splits would leak its subject, and copies all of it.
  data = config.data
  needed = splits_needed(data.held_out, [(name, data[name]) for name, _ in FRACTIONS])
  groups, copies = join_copies(
    [one.group for one in documents], [one.tokens for one in documents], needed
  )
  counts = Counts(
    drawn=drawn,
    too_short=drawn - len(documents),
    minimum=data.position_minimum,
    without_rows=len(documents) - len(np.unique(document)),
    copies=copies,
    groups_joined=len({one.group for one in documents}) - len(set(groups)),
  )
  splits = _split(config, groups, counts)
  documents = [
    dataclasses.replace(one, group=group, split=splits[group])
    for one, group in zip(documents, groups, strict=True)
  ]

  # 2. What is held out, and what of it is known from training all the same.
  held_out = np.array([one.split == HELD_OUT for one in documents])[document]
  twins = count_twins([one.tokens for one in documents], document, position, held_out)
  sizes = Counter(splits[group] for group in set(groups))
  counts = counts._replace(twins=twins, held_out_rows=int(held_out.sum()), groups=dict(sizes))
  _refuse_empty_splits(documents, document, counts)
  return Selection(documents, document, position, counts)


def _split(config, groups: Sequence[str], counts: Counts) -> dict[str, str]:
  """Returns {group: split}. Raises NLAError, with what made them so few, where there are fewer groups than splits."""
  fractions = [(name, config.data[name]) for name, _ in FRACTIONS]
  try:
    return split_groups(
      groups, seed=config.seed, held_out=config.data.held_out, fractions=fractions
    )
  except NLAError as error:
    why = "; ".join([str(error), *notes(counts)])
    raise NLAError(why) from error


def _refuse_empty_splits(
  documents: Sequence[StoredDocument], document: np.ndarray, counts: Counts
) -> None:
  """Raises NLAError where a split has documents and no row: none of their tokens may be taken."""
  rows = {documents[i].split for i in np.unique(document).tolist()}
  empty = [split for split in counts.groups if split not in rows]
  if empty:
    raise NLAError(
      f"no token of the documents of the split {empty[0]} may be taken, so it has no row: give more or longer "
      f"documents; {'; '.join(notes(counts))}"
    )


def _tokenise(
  documents: Collection[tuple[int, Document]], tokenizer, config
) -> tuple[dict[int, StoredDocument], int]:
  """Returns {place in the corpus: document} of those with a position to choose, and the longest length in tokens."""
  data, kept, longest = config.data, {}, 0
  for place, document in documents:
    tokens = np.array(document_ids(tokenizer, document, config.corpus, data.max_tokens), np.int32)
    longest = max(longest, len(tokens))
    if len(tokens) > data.position_minimum:
      talk = document.messages
      roles = roles_of(tokenizer, talk, tokens.tolist()) if talk else None
      group = document.user if document.user and data.group_by == "user" else document.group
      # The split comes later.
      kept[place] = StoredDocument(document.id, group, "", tokens, document.source, roles)
  return kept, longest


def document_ids(
  tokenizer, document: Document, corpus: str, at_most: int | None = None
) -> list[int]:
  """Returns a document's tokens as the target sees them: a text after its BOS, a conversation in the chat template.

  Args:
    tokenizer: the target's.
    document: of the corpus.
    corpus: for messages.
    at_most: tokens that are wanted, from the first; None for all.

  Raises:
    NLAError: it is a conversation, and there is no chat template or the template refuses it.
  """
  if not document.messages:
    return encode(tokenizer, document.text, special=True, at_most=at_most)
  if tokenizer.chat_template is None:
    raise NLAError(
      f"the corpus {corpus} has conversations, and the model's tokenizer has no chat template to write them "
      "with; take an instruction-tuned model, or a corpus of texts"
    )

  try:
    return render(tokenizer, document.messages, at_most=at_most)
  except TemplateError as error:
    raise NLAError(
      f"the model's chat template refuses the conversation {document.id!r} of the corpus {corpus}: it {error.reason}; "
      "change its roles or their order"
    ) from error


def _refuse_too_short(
  config, documents: Sequence[StoredDocument], drawn: int, longest: int
) -> None:
  """Raises NLAError where the corpus, or one of its sources, has no long document."""
  there = {document.source for document in documents}
  missing = [name for name in source_names(config.corpus) if name not in there]
  if documents and missing:
    raise NLAError(
      f"none of the documents drawn of {missing[0]} has more than {config.data.position_minimum} tokens; lower "
      f"--config.data.position_minimum, or leave it out of --config.corpus={config.corpus}"
    )
  if documents:
    return

  # Named is the longest over all processes.
  lengths = distributed.gather_rows(np.array([longest], np.int32))
  raise NLAError(
    f"none of the {drawn} documents of {config.corpus} has more than {config.data.position_minimum} "
    f"tokens (the longest has {int(np.concatenate(lengths).max())}); lower --config.data.position_minimum "
    "or give longer documents"
  )
