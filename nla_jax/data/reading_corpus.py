"""Reads, tokenises and cuts a corpus into blocks, each by one of the processes; see `nla_jax.data.blocks`.

1. Where a part of the corpus is drawn, its documents are counted first: what is drawn depends on how many there are.
2. What is drawn is tokenised, positions are chosen, and what splits must know of a document is computed: marks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from nla_jax.autoencoder.chat import TemplateError, render
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.autoencoder.turns import opening
from nla_jax.data.blocks import COUNT, RECORDS, ROWS, Blocks
from nla_jax.data.corpora.document import Document
from nla_jax.data.corpora.read import Parse, read_blocks, source_names
from nla_jax.data.positions import MARK, choose_positions, context_marks, mark, text_mark
from nla_jax.data.roles import allowed, roles_of
from nla_jax.data.store.documents import StoredDocument
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed


def count_documents(blocks: Blocks, corpus: str) -> int:
  """Counts the documents of each record of a corpus. Returns how many blocks there are.

  Raises:
    NLAError: the corpus cannot be read; in every process where it is so in one.
    PreemptedError: the process was asked to stop; what is written stays.
  """
  names = source_names(corpus)

  def count(block: int, records: Iterable[Parse]) -> None:
    counted = _Counted(names)
    for parse in records:
      counted.add(list(parse()))
    blocks.write(COUNT, block, counted.arrays())

  return _in_turn(blocks, COUNT, corpus, count)


def tokenise(blocks: Blocks, config, tokenizer, drawn: np.ndarray | None) -> int:
  """Tokenises what is drawn of a corpus and chooses positions. Returns how many blocks there are.

  Args:
    blocks: to write. Where a part is drawn, the documents are counted there.
    config: the run's.
    tokenizer: the target's.
    drawn: [n] int, places in the corpus, ascending; None for all, which are then counted on the way.

  Raises:
    NLAError: as `count_documents`, or a document cannot be tokenised.
    PreemptedError: as there.
  """
  names, taker = source_names(config.corpus), _Taker(config, tokenizer)
  begins = None if drawn is None else _begins(blocks)

  def take(block: int, records: Iterable[Parse]) -> None:
    kept = _Kept(names)
    if drawn is None:
      counted = _Counted(names)
      for parse in records:
        documents = list(parse())
        counted.add(documents)
        taker.take(documents, kept)
      blocks.write(COUNT, block, counted.arrays())
    else:
      wanted = drawn[slice(*np.searchsorted(drawn, begins[block : block + 2]))] - begins[block]
      for documents in _drawn(blocks, block, records, wanted):
        taker.take(documents, kept)
    # In this order: the rows say that the block is whole.
    blocks.write_documents(block, kept.documents)
    blocks.write(ROWS, block, kept.arrays())

  count = _in_turn(blocks, ROWS, config.corpus, take)
  taker.refuse_template()
  return count


def _in_turn(blocks: Blocks, kind: str, corpus: str, make: Callable) -> int:
  """Lets every process make its blocks of those that are missing. Returns how many blocks there are."""
  index, processes = distributed.process()
  count, done = blocks.whole(kind), blocks.done(kind)
  # Before anyone writes, or a process would take what another has just written for done before.
  distributed.wait(f"{kind} of the corpus begun")
  if count is not None:
    return count

  def read() -> int:
    count = 0
    for block, records in read_blocks(corpus, RECORDS):
      # Asked by all at every block, so that they count the calls alike.
      if distributed.preempted():
        raise distributed.PreemptedError("extract stopped; what is tokenised is kept")
      # From the last process on: the first one has more to do besides, and may be spared in a small corpus.
      if block not in done and (processes - 1 - block) % processes == index:
        make(block, records)
      count = block + 1
    return count

  # Together: where one process meets a bad line, the others would wait for it for ever.
  count = distributed.together("read its part of the corpus", read)
  if index == 0:
    blocks.close(kind, count)
  distributed.wait(f"{kind} of the corpus written")
  return count


def _begins(blocks: Blocks) -> np.ndarray:
  """Returns the place in the corpus at which each block's documents begin, and where the last one ends."""
  lengths = [len(blocks.read(COUNT, i)["source"]) for i in range(blocks.whole(COUNT))]
  return np.cumsum([0, *lengths])


def _drawn(
  blocks: Blocks, block: int, records: Iterable[Parse], wanted: np.ndarray
) -> Iterator[list[Document]]:
  """Yields the documents of a block that are drawn; records of which none is are not parsed.

  Args:
    blocks: where they are counted.
    block: its number.
    records: of it.
    wanted: [n] int, places in the block, ascending.
  """
  ends = np.cumsum(blocks.read(COUNT, block)["documents"])
  for parse, begin, end in zip(records, [0, *ends[:-1]], ends, strict=True):
    here = wanted[slice(*np.searchsorted(wanted, [begin, end]))] - begin
    if len(here):
      documents = list(parse())
      yield [documents[i] for i in here]


class _Counted:
  """What is known of all documents of a block."""

  def __init__(self, names: Sequence[str]):
    self._names, self._documents, self._source, self._ids = names, [], [], []

  def add(self, documents: Sequence[Document]) -> None:
    """Counts the documents of a record."""
    self._documents.append(len(documents))
    self._source += [self._names.index(one.source) for one in documents]
    self._ids += [mark(one.id.encode()) for one in documents]

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns documents [records] int32, and of each document source int16 and id MARK."""
    return {
      "documents": np.array(self._documents, np.int32),
      "source": np.array(self._source, np.int16),
      "id": np.array(self._ids, MARK),
    }


class _Kept:
  """What is kept of a block.

  Attributes:
    documents: without a split.
    longest: tokens of the longest document that was looked at.
    talks: whether one of these is a conversation.
  """

  def __init__(self, names: Sequence[str]):
    self.documents: list[StoredDocument] = []
    self.longest, self.talks = 0, False
    self._names, self._rows, self._positions, self._contexts = names, [], [], []

  def add(self, document: StoredDocument, positions: Sequence[int]) -> None:
    """Keeps a document with the positions of its rows, ascending."""
    self.documents.append(document)
    self._rows.append(len(positions))
    self._positions += positions
    self._contexts += context_marks(document.tokens, positions)

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns what is known of the kept documents without their tokens; see `nla_jax.data.known`."""
    documents = self.documents
    groups = [one.group.encode() for one in documents]
    return {
      "source": np.array([self._names.index(one.source) for one in documents], np.int16),
      "text": np.array([text_mark(one.tokens) for one in documents], MARK),
      "length": np.array([len(one.tokens) for one in documents], np.int32),
      "rows": np.array(self._rows, np.int32),
      "position": np.array(self._positions, np.int32),
      "context": np.array(self._contexts, MARK),
      "group": np.frombuffer(b"".join(groups), np.uint8),
      "group_ends": np.cumsum([len(one) for one in groups], dtype=np.int64),
      "longest": np.int64(self.longest),
      "largest": np.array([one.tokens.max(initial=0) for one in documents], np.int32),
      "talks": np.bool(self.talks),
      "roles": np.bool(any(one.roles is not None for one in documents)),
    }


class _Taker:
  """Takes documents as a config asks: tokenises them, leaves out the short ones, chooses positions."""

  def __init__(self, config, tokenizer):
    self._config, self._tokenizer = config, tokenizer
    self._special, self._opening, self._refusal = frozenset(special_tokens(tokenizer)), (), None
    try:
      self._opening = opening(tokenizer)
    except TemplateError as error:
      self._refusal = error

  def refuse_template(self) -> None:
    """Raises what the chat template refused, behind all documents: one that it refuses says more."""
    if self._refusal is not None:
      raise self._refusal

  def take(self, documents: Iterable[Document], kept: _Kept) -> None:
    """Adds those of some documents that have a position to choose from."""
    config, tokenizer = self._config, self._tokenizer
    data = config.data
    for document in documents:
      ids = document_ids(tokenizer, document, config.corpus, data.max_tokens)
      kept.longest, kept.talks = max(kept.longest, len(ids)), kept.talks or bool(document.messages)
      if len(ids) <= data.position_minimum:
        continue

      talk = document.messages
      roles = roles_of(tokenizer, talk, ids) if talk else None
      positions = choose_positions(
        document.id,
        ids,
        self._special,
        seed=config.seed,
        per_document=data.positions_per_document,
        minimum=data.position_minimum,
        opening=self._opening,
        allowed=allowed(roles, data),
      )
      group = document.user if document.user and data.group_by == "user" else document.group
      tokens = np.array(ids, np.int32)
      # The split comes later.
      kept.add(StoredDocument(document.id, group, "", tokens, document.source, roles), positions)


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
