"""An index of a corpus: of each example its text, its explanation, its activation and embeddings of both texts.

  texts/000000.jsonl …   id, text and explanation of a shard's examples
  store/                 activations, `words` (embedding of the text), `explained` (embedding of the explanation)

It is made a shard at a time and read a shard at a time. One that was interrupted goes on where it was.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax import files
from nla_jax.conversation.positions import choose
from nla_jax.data.corpora.document import Document
from nla_jax.data.corpora.read import read_corpus
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.evaluation.judges import minilm
from nla_jax.json_lines import read_lines
from nla_jax.progress import track
from nla_jax.tracing.ranking import words

STORE, TEXTS = "store", "texts"
ACTIVATIONS, WORDS, EXPLAINED = "activations", "words", "explained"
HASHED = "hashed words"
_HASHED_WIDTH = 512
_CHUNK = 64  # rows that the store reads together, at most
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
  """How an index is made.

  Attributes:
    positions: which token of each example is explained, as `nla read --positions`; of several the last.
    max_tokens: examples are cut to this length, at the end.
    shard_rows: examples of a shard.
    explanations: whether the AV writes; without it activations and words are indexed alone.
    seed: of the draws.
  """

  positions: str = "last"
  max_tokens: int = 128
  shard_rows: int = 512
  explanations: bool = True
  seed: int = 0


def embedder() -> tuple[str, Embed]:
  """MiniLM where its package is installed; else words hashed to places, which knows no synonyms."""
  found = minilm.load_embedder()
  return (HASHED, hashed) if found is None else (minilm.NAME, found)


def hashed(texts: Sequence[str]) -> np.ndarray:
  """[n, 512] float32 at unit norm: how often words fall to each place, with a sign."""
  vectors = np.zeros((len(texts), _HASHED_WIDTH), np.float32)
  for row, text in enumerate(texts):
    for word in words(text):
      # Python's own hash is another in every process.
      number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
      vectors[row, number % _HASHED_WIDTH] += 1 if number >> 63 else -1
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(norms, 1e-12)


def make_index(corpus: str, folder: str | Path, nla: Any, making: Making | None = None) -> None:
  """Makes an index, or what is left of one.

  Args:
    corpus: as for `read_corpus`.
    folder: of the index.
    nla: a loaded pair; or None for words alone.
    making: how.

  Raises:
    NLAError: the corpus cannot be read, or the folder holds an index of something else.
  """
  making, folder = making or Making(), Path(files.here(folder))
  if making.max_tokens < 1:
    raise NLAError(f"max_tokens={making.max_tokens}: at least one token of an example is needed")
  name, embed = embedder()
  width = embed(["a"]).shape[1]
  arrays = {WORDS: ((width,), "float32")}
  if nla is not None:
    arrays[ACTIVATIONS] = ((nla.pair.verbalizer.architecture.d_model,), "float32")
    if making.explanations:
      arrays[EXPLAINED] = ((width,), "float32")

  # Read twice, since a store is of known size: once to count, once to index.
  n = sum(1 for _ in read_corpus(corpus))
  made_from = {"corpus": corpus, "embedder": name, **dataclasses.asdict(making)}
  made_from |= {"base": nla.base, "adapter": nla.model_adapter} if nla is not None else {}
  store = files.below(folder, STORE)
  rows = making.shard_rows
  writer = StoreWriter(store, arrays, n, rows, math.gcd(rows, _CHUNK), made_from)
  _write_shards(writer, read_corpus(corpus), folder, nla, making, embed)

  writer.write_documents([StoredDocument(f"{n} examples", "", "", np.zeros(0, np.int32))])
  fields = {"mean": _mean(folder, writer)} if nla is not None else {}
  writer.finish(fields)


def _write_shards(
  writer: StoreWriter,
  documents: Iterator[Document],
  folder: Path,
  nla: Any,
  making: Making,
  embed: Embed,
) -> None:
  done = writer.done
  for shard in track(range(writer.n_shards), "index", "shard"):
    part = [next(documents) for _ in writer.shard_range(shard)]
    if shard in done:
      continue

    texts = [_text(one) for one in part]
    arrays = {WORDS: np.asarray(embed(texts), np.float32)}
    explained: list[str] = [""] * len(part)
    if nla is not None:
      arrays[ACTIVATIONS] = vectors_of(nla, [_read(one) for one in part], making)
      if making.explanations:
        found = nla.explain(arrays[ACTIVATIONS], greedy=True, seed=making.seed)
        explained = [one.text or "" for one in found]
        arrays[EXPLAINED] = np.asarray(embed(explained), np.float32)

    # The texts first: what counts is the record that the store writes last.
    lines = [
      {"id": one.id, "text": text, "explanation": said}
      for one, text, said in zip(part, texts, explained, strict=True)
    ]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    files.write_text(folder / TEXTS / f"{shard:06d}.jsonl", content)
    writer.write_shard(shard, arrays)


def vectors_of(nla: Any, what: Sequence[Any], making: Making) -> np.ndarray:
  """The activation [n, d_model] at the last chosen token of each text or conversation."""
  ids, places = [], []
  for one in what:
    tokens = nla.tokens(one)
    at = max(choose(tokens, making.positions, seed=making.seed))

    # What lies far before the token is left out, as training left it out.
    start = max(at + 1 - making.max_tokens, 0)
    ids.append(tokens.ids[start : at + 1])
    places.append([at - start])
  return np.concatenate(nla.activations(ids, places)).astype(np.float32, copy=False)


def _read(document: Document) -> Any:
  return list(document.messages) or document.text


def _text(document: Document) -> str:
  # Without the template's own words, which all conversations share.
  said = [str(one["content"]) for one in document.messages]
  return "\n".join(said) or document.text


def _mean(folder: Path, writer: StoreWriter) -> list[float]:
  """The mean activation, read back a shard at a time."""
  # Not yet a store: the manifest, which holds the mean, is written last.
  total, n = 0.0, 0
  for shard in range(writer.n_shards):
    rows = writer.read(ACTIVATIONS, shard)
    total, n = total + rows.astype(np.float64).sum(axis=0), n + len(rows)
  return (total / n).tolist()


class Index:
  """A finished index, read a shard at a time.

  Args:
    folder: of the index.

  Raises:
    NLAError: there is none, or it was interrupted.
  """

  def __init__(self, folder: str | Path):
    self.folder = Path(files.here(folder))
    if not (self.folder / STORE).is_dir():
      raise NLAError(
        f"{folder} holds no index: make one with `nla trace --corpus=… --index={folder}`"
      )
    self.store = Store(str(self.folder / STORE))
    made = self.store.manifest["made_from"]
    fields = {one.name for one in dataclasses.fields(Making)}
    self.making = Making(**{key: value for key, value in made.items() if key in fields})
    self.embedder = made["embedder"]

  def __len__(self) -> int:
    return len(self.store)

  def vectors(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """The first row and the vectors of each shard; activations without the corpus' mean."""
    rows = self.store.manifest["shard_rows"]
    for start in range(0, len(self), rows):
      found = self.store.read(name, slice(start, start + rows))
      yield start, found - self.mean if name == ACTIVATIONS else found

  @property
  def mean(self) -> np.ndarray:
    """The mean activation [d_model], which all examples share and which tells nothing."""
    return np.asarray(self.store.manifest["mean"])

  def texts(self, key: str = "text") -> Iterator[tuple[int, list[str]]]:
    """The first row and the texts, or the explanations, of each shard."""
    rows = self.store.manifest["shard_rows"]
    for i, start in enumerate(range(0, len(self), rows)):
      yield start, [line[key] for line in self._lines(i)]

  def example(self, row: int) -> Mapping[str, str]:
    """Id, text and explanation of one example."""
    shard, at = divmod(row, self.store.manifest["shard_rows"])
    return self._lines(shard)[at]

  def _lines(self, shard: int) -> list[dict]:
    path = self.folder / TEXTS / f"{shard:06d}.jsonl"
    lines, rows = read_lines(path), self.store.manifest["shard_rows"]
    if len(lines) != min(rows, len(self) - shard * rows):
      raise NLAError(f"{path} is damaged or missing: delete the index and make it again")
    return lines
