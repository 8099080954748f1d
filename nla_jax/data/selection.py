"""What of a corpus is extracted: documents tokenised as the target sees them, positions chosen, splits drawn.

With several processes each reads, cleans and tokenises its part of the corpus; the tokens then meet in files beside the
store, and every process holds what one process alone would have made.
"""

import dataclasses
import hashlib
import random
from typing import NamedTuple

import numpy as np

from nla_jax import files
from nla_jax.autoencoder.prompts import encode
from nla_jax.data.corpora import corpus as corpora
from nla_jax.data.positions import choose_rows, split_groups
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
  """Reads and tokenises the corpus, chooses positions and splits (held-out groups first).

  Args:
    config: the run's.
    tokenizer: the target's.
    folder: path or KvStore URL that all processes share, for their tokens on the way; empty afterwards.

  Raises:
    NLAError: the corpus cannot be read, or holds nothing long enough; in every process where it is so in one.
  """
  data, (index, count) = config.data, distributed.process()
  part = distributed.together(
    "read its part of the corpus", lambda: list(corpora.read_part(config.corpus, index, count))
  )
  place, total = _places(config.corpus, part)
  chosen = range(total)
  if data.max_documents and data.max_documents < total:
    chosen = frozenset(random.Random(config.seed).sample(range(total), data.max_documents))
  kept, longest = {}, 0
  for i, (_, document) in zip(place.tolist(), part, strict=True):
    if i in chosen:
      tokens = np.array(encode(tokenizer, document.text, special=True)[: data.max_tokens], np.int32)
      longest = max(longest, len(tokens))
      if len(tokens) > data.position_minimum:
        kept[i] = StoredDocument(document.id, document.group, "", tokens)
  documents = _meet(kept, folder)
  if not documents:
    longest = int(np.concatenate(distributed.gather_rows(np.array([longest], np.int32))).max())
    raise NLAError(
      f"none of the {len(chosen)} documents of {config.corpus} has more than {data.position_minimum} "
      f"tokens (the longest has {longest}); lower --config.data.position_minimum or give longer documents"
    )
  document, position = choose_rows(
    [(one.id, one.tokens) for one in documents],
    tokenizer.all_special_ids,
    seed=config.seed,
    per_document=data.positions_per_document,
    minimum=data.position_minimum,
  )
  splits = split_groups(
    [one.group for one in documents],
    seed=config.seed,
    held_out=data.held_out,
    fractions=[(name, data[name]) for name in ("av_sft", "ar_sft", "rl")],
  )
  return Selection(
    [dataclasses.replace(one, split=splits[one.group]) for one in documents], document, position
  )


def _places(source: str, part: list[tuple[int, corpora.Document]]) -> tuple[np.ndarray, int]:
  """Where in the whole corpus each document of this process's part stands, and how many documents there are.

  Raises NLAError in every process where there is none, or two parts hold one id.
  """
  marks = [
    np.frombuffer(hashlib.sha256(document.id.encode()).digest()[:8], np.int32)
    for _, document in part
  ]
  mine = np.column_stack(
    [np.array([record for record, _ in part], np.int32), np.array(marks, np.int32).reshape(-1, 2)]
  )
  parts = distributed.gather_rows(mine)
  whole = np.concatenate(parts)
  if not len(whole):
    raise corpora.nothing(source)
  _, first, times = np.unique(whole[:, 1:], axis=0, return_index=True, return_counts=True)
  if times.max() > 1:
    twice = whole[first[times > 1][0], 1:]
    names = (
      document.id for mark, (_, document) in zip(marks, part, strict=True) if (mark == twice).all()
    )
    raise corpora.twice(source, next(names, "that other processes name"))
  place = np.empty(len(whole), np.int64)
  place[np.argsort(whole[:, 0], kind="stable")] = np.arange(len(whole))
  begin = sum(map(len, parts[: distributed.process()[0]]))
  return place[begin : begin + len(part)], len(whole)


def _meet(kept: dict[int, StoredDocument], folder: str) -> list[StoredDocument]:
  """The documents of all processes in the corpus's order, from {place in the corpus: document} of this one."""
  index, count = distributed.process()
  if count == 1:
    return list(kept.values())
  shared, name = files.open_files(folder), "{:05d}.parquet".format
  with files.writing(folder):
    shared.write(name(index), documents_to_parquet(list(kept.values()))).result()
  places = np.concatenate(
    distributed.gather_rows(np.array(list(kept), np.int32))
  )  # and all have written
  documents = [one for i in range(count) for one in Documents(shared.read(name(i)).result().value)]
  distributed.wait("tokens read")
  with files.writing(folder):
    shared.write(name(index), None).result()
  return [documents[i] for i in np.argsort(places)]
