"""Selection: what of a corpus is extracted. Documents are tokenised, positions chosen, splits drawn.

`nla_jax.data.positions` holds the rules, as functions of names and seeds; this module applies them to a corpus, with a
config and a tokenizer. With several processes each reads, cleans and tokenises its part of the corpus; the tokens then
meet in files beside the store, and every process holds what one process alone would have made.
"""

import dataclasses
import hashlib
import random
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from nla_jax import files
from nla_jax.autoencoder.prompts import encode
from nla_jax.data.corpora.document import Document, no_document, repeated_id
from nla_jax.data.corpora.read import read_part
from nla_jax.data.positions import FRACTIONS, choose_rows, split_groups
from nla_jax.data.store.documents import Documents, StoredDocument, documents_to_parquet
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed


class Selection(NamedTuple):
  """What will be extracted, known before the model runs.

  Attributes:
    documents: as the target sees them, with their split.
    document: [N] int32, which document each row is from.
    position: [N] int32, index of the row's token.
  """

  documents: list[StoredDocument]
  document: np.ndarray
  position: np.ndarray


def select(config, tokenizer, folder: str) -> Selection:
  """Reads and tokenises the corpus, then chooses positions and splits.

  1. Each process reads its part of the corpus.
  2. Documents are drawn where the config limits their number, tokenised, and the short ones left out.
  3. The documents of all processes meet.
  4. Positions are chosen.
  5. Groups are split, held-out groups first.

  Args:
    config: the run's.
    tokenizer: the target's.
    folder: path or KvStore URL that all processes share, for their tokens on the way; empty afterwards.

  Raises:
    NLAError: the corpus cannot be read, or holds nothing long enough; in every process where it is so in one.
  """
  data = config.data

  # 1. Together: where one process meets a bad line, the others would wait for it for ever.
  index, count = distributed.process()
  part = distributed.together(
    "read its part of the corpus", lambda: list(read_part(config.corpus, index, count))
  )
  place, total = _places(config.corpus, part)

  # 2. Drawn by place in the whole corpus, so the number of processes does not change the draw.
  drawn = range(total)
  if data.max_documents and data.max_documents < total:
    drawn = frozenset(random.Random(config.seed).sample(range(total), data.max_documents))
  mine = [
    (i, document) for i, (_, document) in zip(place.tolist(), part, strict=True) if i in drawn
  ]
  kept, longest = _tokenise(mine, tokenizer, data)

  # 3. Every process now has the documents of all, or raises as the others do.
  documents = _gather(kept, folder)
  if not documents:
    _raise_too_short(config, len(drawn), longest)

  # 4. Positions.
  document, position = choose_rows(
    [(one.id, one.tokens) for one in documents],
    tokenizer.all_special_ids,
    seed=config.seed,
    per_document=data.positions_per_document,
    minimum=data.position_minimum,
  )

  # 5. Splits are of groups: paragraphs of one article in two splits would leak its subject.
  splits = split_groups(
    [one.group for one in documents],
    seed=config.seed,
    held_out=data.held_out,
    fractions=[(name, data[name]) for name, _ in FRACTIONS],
  )
  documents = [dataclasses.replace(one, split=splits[one.group]) for one in documents]
  return Selection(documents, document, position)


def _tokenise(
  documents: Collection[tuple[int, Document]], tokenizer, data
) -> tuple[dict[int, StoredDocument], int]:
  """Returns {place in the corpus: document} of those with a position to choose, and the longest length in tokens."""
  kept, longest = {}, 0
  for place, document in documents:
    ids = encode(tokenizer, document.text, special=True)
    tokens = np.array(ids[: data.max_tokens], np.int32)
    longest = max(longest, len(tokens))
    if len(tokens) > data.position_minimum:
      kept[place] = StoredDocument(document.id, document.group, "", tokens)  # the split comes later
  return kept, longest


def _raise_too_short(config, drawn: int, longest: int) -> None:
  """Raises the NLAError of a corpus without a long document, naming the longest over all processes."""
  lengths = distributed.gather_rows(np.array([longest], np.int32))
  raise NLAError(
    f"none of the {drawn} documents of {config.corpus} has more than {config.data.position_minimum} "
    f"tokens (the longest has {int(np.concatenate(lengths).max())}); lower --config.data.position_minimum "
    "or give longer documents"
  )


def _places(source: str, part: list[tuple[int, Document]]) -> tuple[np.ndarray, int]:
  """Finds where in the whole corpus each document of this process's part stands.

  Args:
    source: of the corpus, for messages.
    part: (number of the record, document) of this process.

  Returns:
    place [documents of the part] int64, and how many documents the whole corpus has.

  Raises:
    NLAError: in every process, where there is no document or two parts hold one id.
  """
  # Of an id only 64 bits of its hash travel: ids have any length, and `gather_rows` takes 32-bit numbers.
  marks = [
    np.frombuffer(hashlib.sha256(document.id.encode()).digest()[:8], np.int32)
    for _, document in part
  ]
  records = np.array([record for record, _ in part], np.int32)
  mine = np.column_stack([records, np.array(marks, np.int32).reshape(-1, 2)])  # [documents, 3]

  parts = distributed.gather_rows(mine)
  whole = np.concatenate(parts)
  if not len(whole):
    raise no_document(source)

  _, first, times = np.unique(whole[:, 1:], axis=0, return_index=True, return_counts=True)
  if times.max() > 1:
    twice = whole[first[times > 1][0], 1:]
    names = (
      document.id for mark, (_, document) in zip(marks, part, strict=True) if (mark == twice).all()
    )
    raise repeated_id(source, next(names, "that other processes name"))

  # Stable, because the documents of one record (an article's paragraphs) share its number and keep their order.
  place = np.empty(len(whole), np.int64)
  place[np.argsort(whole[:, 0], kind="stable")] = np.arange(len(whole))
  begin = sum(map(len, parts[: distributed.process()[0]]))
  return place[begin : begin + len(part)], len(whole)


def _gather(kept: dict[int, StoredDocument], folder: str) -> list[StoredDocument]:
  """Returns the documents of all processes, in the corpus's order.

  Args:
    kept: {place in the corpus: document} of this process.
    folder: that all processes share.
  """
  index, count = distributed.process()
  if count == 1:
    return list(kept.values())

  shared = files.open_files(folder)
  names = [f"{i:05d}.parquet" for i in range(count)]
  with files.writing(folder):
    shared.write(names[index], documents_to_parquet(list(kept.values()))).result()

  # Gathering waits for every process, so behind this line all files are written.
  places = np.concatenate(distributed.gather_rows(np.array(list(kept), np.int32)))
  documents = []
  for name in names:
    documents += Documents(shared.read(name).result().value)

  # Nobody deletes its file before all have read it.
  distributed.wait("tokens read")
  with files.writing(folder):
    shared.write(names[index], None).result()
  return [documents[i] for i in np.argsort(places)]
