"""A pair that speaks in words, of documents whose topics and continuations are known.

Its target's activation at a token is a bag of the words just read; its AR rebuilds the bag of an explanation's words;
its AV says of a held-out row what a test wants it to say.
"""

import functools
import re
from types import SimpleNamespace

import numpy as np

from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter

WIDTH = 256
GROUPS, DOCUMENTS, LENGTH = 4, 6, 100  # held-out groups, documents of each, tokens of each
POSITIONS = (30, 50)


class Tokenizer:
  """A token is a word; an unknown one is learned when it is first met."""

  chat_template, eos_token_id = None, 0

  def __init__(self):
    self.ids, self.words = {}, []

  def encode(self, text):
    found = []
    for word in text.split():
      if word not in self.ids:
        self.ids[word] = len(self.words)
        self.words.append(word)
      found.append(self.ids[word])
    return found

  def decode(self, ids, skip_special_tokens=False):
    return " ".join(self.words[int(i)] for i in ids)

  def __call__(self, texts, add_special_tokens=True):
    if isinstance(texts, str):
      return {"input_ids": self.encode(texts)}
    return {"input_ids": [self.encode(text) for text in texts]}


def words_of(group: int, document: int) -> list[str]:
  """The words of a document: every fifth one names its group, the others are its own in turn."""
  own = [f"d{group}x{document}w{i}" for i in range(16)]
  return [f"g{group}" if i % 5 == 0 else own[i % 16] for i in range(LENGTH)]


def write_store(path, tokenizer: Tokenizer) -> Store:
  """Held-out documents of four groups, and one of a fifth group for training; two rows each."""
  arrays = {
    "activations": ((WIDTH,), "float32"),
    "document": ((), "int32"),
    "position": ((), "int32"),
  }
  places = [(g, d) for g in range(GROUPS) for d in range(DOCUMENTS)] + [(GROUPS, 0)]
  n = len(POSITIONS)
  writer = StoreWriter(str(path), arrays, n * len(places), n, n)
  vectors = np.random.default_rng(0).normal(size=(len(places), n, WIDTH))
  documents = []
  for i, (g, d) in enumerate(places):
    rows = {
      "activations": vectors[i].astype(np.float32),
      "document": np.full(n, i, np.int32),
      "position": np.array(POSITIONS, np.int32),
    }
    writer.write_shard(i, rows)
    split = "held_out" if g < GROUPS else "rl"
    tokens = np.array(tokenizer.encode(" ".join(words_of(g, d))))
    documents.append(StoredDocument(f"{g}.{d}", f"group {g}", split, tokens, ""))
  writer.write_documents(documents)
  writer.finish({"layer": 1})
  return Store(str(path))


class SpeakingNLA:
  """What a suite asks of an NLA.

  Attributes:
    says: from (words of the document or text, position) to the explanation.
    read: texts that the target has read, by the activation at their end.
  """

  def __init__(self, says=lambda words, position: None, tokenizer=None, store=None):
    self.says, self.tokenizer = says, tokenizer or Tokenizer()
    self.av_params, self.ar_params, self.known = {}, {}, []
    self.whole_target = SimpleNamespace()
    self.pair = SimpleNamespace(
      verbalizer=SimpleNamespace(architecture=SimpleNamespace(d_model=WIDTH)),
      layer=1,
      tokenizer=self.tokenizer,
      sample_explanations=self.sample_explanations,
    )
    if store is not None:
      rows = store.rows("held_out")
      of = zip(store.read("document", rows), store.read("position", rows), strict=True)
      for vector, (document, position) in zip(store.read("activations", rows), of):
        words = self.tokenizer.decode(store.documents[int(document)].tokens).split()
        self.known.append((vector, words, int(position)))

  def sample_explanations(self, params, given, key, *, batch, greedy, on_batch):
    on_batch(len(given))
    vectors = np.stack([vector for vector, _, _ in self.known])
    found = []
    for one in given:
      nearest = int(np.abs(vectors - one).sum(axis=1).argmin())
      found.append(self.says(*self.known[nearest][1:]))
    return found, np.array([len((text or "").split()) for text in found])

  def tokens(self, what):
    text = what if isinstance(what, str) else " ".join(one["content"] for one in what)
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    return SimpleNamespace(ids=self.tokenizer.encode(text), ends=ends)

  def activations(self, texts, positions):
    """The bag of words up to each position, and which words they were, for the AV."""
    found = []
    for ids, places in zip(texts, positions, strict=True):
      vectors = [self.bag(self.tokenizer.decode(ids[: place + 1])) for place in places]
      words = self.tokenizer.decode(ids).split()
      self.known += [(vector, words, place) for vector, place in zip(vectors, places)]
      found.append(np.stack(vectors))
    return found

  def reconstruct(self, texts, *, batch):
    return np.stack([self.bag(text or "nothing") for text in texts])

  def bag(self, text):
    # A word counts once, as in a set.
    return sum(map(_direction, dict.fromkeys(self.tokenizer.encode(text)))).astype(np.float32)


@functools.cache
def _direction(token: int) -> np.ndarray:
  return np.random.default_rng(token).normal(size=WIDTH)
