"""How the processes that read a corpus meet: where in the whole each one's documents stand, and all documents in all.

Numbers go through the devices, tokens through files beside the store.
"""

import hashlib

import numpy as np

from nla_jax import files
from nla_jax.data.corpora.document import Document, no_document, repeated_id
from nla_jax.data.corpora.read import source_names
from nla_jax.data.store.documents import Documents, StoredDocument, documents_to_parquet
from nla_jax.parallel import distributed


def find_places(corpus: str, part: list[tuple[int, Document]]) -> tuple[np.ndarray, list[int]]:
  """Finds where in the whole corpus each document of this process's part stands.

  Args:
    corpus: as the config names it.
    part: (number of the record, document) of this process.

  Returns:
    place [documents of the part] int64, and how many documents each source has.

  Raises:
    NLAError: in every process, where a source has no document or two parts hold one id.
  """
  # Of an id only 64 bits of its hash travel: ids have any length, and `gather_rows` takes 32-bit numbers.
  marks = [
    np.frombuffer(hashlib.sha256(document.id.encode()).digest()[:8], np.int32)
    for _, document in part
  ]
  names = source_names(corpus)
  records = np.array(
    [(names.index(document.source), record) for record, document in part], np.int32
  ).reshape(-1, 2)
  mine = np.concatenate(
    [records, np.array(marks, np.int32).reshape(-1, 2)], axis=1
  )  # [documents, 4]

  parts = distributed.gather_rows(mine)
  whole = np.concatenate(parts)
  counts = np.bincount(whole[:, 0], minlength=len(names)).tolist()
  if 0 in counts:
    raise no_document(names[counts.index(0)] or corpus)

  _, first, times = np.unique(whole[:, 2:], axis=0, return_index=True, return_counts=True)
  if times.max() > 1:
    twice = whole[first[times > 1][0], 2:]
    mine_twice = (
      document.id for mark, (_, document) in zip(marks, part, strict=True) if (mark == twice).all()
    )
    raise repeated_id(corpus, next(mine_twice, "that other processes name"))

  # Stable, because the documents of one record (an article's paragraphs) share its number and keep their order.
  place = np.empty(len(whole), np.int64)
  place[np.argsort(whole[:, 1], kind="stable")] = np.arange(len(whole))
  begin = sum(map(len, parts[: distributed.process()[0]]))
  return place[begin : begin + len(part)], counts


def gather_documents(kept: dict[int, StoredDocument], folder: str) -> list[StoredDocument]:
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
  with files.reading(folder):
    contents = [shared.read(name).result().value for name in names]
  for content in contents:
    documents += Documents(content)

  # Nobody deletes its file before all have read it.
  distributed.wait("tokens read")
  with files.writing(folder):
    shared.write(names[index], None).result()
  return [documents[i] for i in np.argsort(places)]
