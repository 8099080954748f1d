"""A pair whose answers are known: its AV names the activation it is given, its AR answers the one that is named.

And a store of its activations, in which each held-out row has a twin among the training rows.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.models.token_scores import TokenScores

WIDTH, DOCUMENTS, PER_DOCUMENT = 8, 3, 8
ROWS = DOCUMENTS * PER_DOCUMENT  # held-out rows; their twins among the training rows follow
OWN, OTHER = (
  1.0,
  3.0,
)  # nats a token of the AV's answers, with the vector they are about and with another


def vectors() -> np.ndarray:
  """[2 · ROWS, WIDTH] activations of different norms; row i and row i + ROWS point the same way."""
  generator = np.random.default_rng(0)
  directions = generator.normal(size=(ROWS, WIDTH))
  norms = generator.lognormal(size=(2 * ROWS, 1))
  return (np.concatenate([directions, directions]) * norms).astype(np.float32)


def write_store(path, split="rl", layer=1, sources=("",) * DOCUMENTS) -> Store:
  """Three held-out documents in three groups, and three of `split`; eight rows each, at positions 0 to 7.

  `sources` are those of the held-out documents, and of the others.
  """
  arrays = {
    "activations": ((WIDTH,), "float32"),
    "document": ((), "int32"),
    "position": ((), "int32"),
  }
  writer = StoreWriter(str(path), arrays, 2 * ROWS, PER_DOCUMENT, PER_DOCUMENT)
  every = vectors()
  for i in range(2 * DOCUMENTS):
    writer.write_shard(
      i,
      {
        "activations": every[PER_DOCUMENT * i : PER_DOCUMENT * (i + 1)],
        "document": np.full(PER_DOCUMENT, i, np.int32),
        "position": np.arange(PER_DOCUMENT, dtype=np.int32),
      },
    )
  splits = ["held_out"] * DOCUMENTS + [split] * DOCUMENTS
  # A document's tokens are 100 · document + position, 1 at its start; ids below 3 are special.
  writer.write_documents(
    [
      StoredDocument(
        f"d{i}",
        f"g{i}",
        name,
        np.array([1, *range(100 * i + 1, 100 * i + 10)]),
        sources[i % DOCUMENTS],
      )
      for i, name in enumerate(splits)
    ]
  )
  writer.finish({"layer": layer})
  return Store(str(path))


class Tokenizer:
  """Writes a token as its number."""

  chat_template = None

  def decode(self, ids, skip_special_tokens=False):
    return " ".join(str(i) for i in ids if not (skip_special_tokens and i < 3))

  def __call__(self, texts, add_special_tokens=True):
    begin = [1] if add_special_tokens else []
    return {"input_ids": [begin + [int(word) for word in text.split()] for text in texts]}


class KnownNLA:
  """What an evaluation asks of an NLA.

  Attributes:
    silent: names of activations for which the AV's answer does not parse.
    more: words that the AV writes after the name.
    ar: how the AR reads: the `first` word, `any` word that names an activation, or the name `one lower`.
    draws: what was explained: (vectors, greedy) of each call.
    read: texts that the AR has read.
  """

  def __init__(self, silent=(), more="", ar="first"):
    self.silent, self.more, self.ar, self.draws, self.read = silent, more, ar, [], []
    self.magnitude = None
    self.av_params, self.ar_params = {}, {"reads": np.frombuffer(ar.encode(), np.uint8)}
    self.units = _units(vectors()[:ROWS])
    self.pair = SimpleNamespace(
      verbalizer=SimpleNamespace(architecture=SimpleNamespace(d_model=WIDTH)),
      layer=1,
      tokenizer=Tokenizer(),
      prompts=SimpleNamespace(answer_ids=lambda tokenizer, text: [int(text)] * 2, stop_id=0),
      sample_explanations=self.sample_explanations,
      score_answers=self.score_answers,
    )

  def sample_explanations(self, params, given, key, *, batch, greedy, on_batch):
    """ "17" of activation 17, "99" of what is none; of one token, like every answer."""
    self.draws.append((np.array(given), greedy))
    texts = []
    for start in range(0, len(given), batch):
      texts += [self.name(vector) for vector in given[start : start + batch]]
      on_batch(len(given[start : start + batch]))
    said = [None if text in self.silent else f"{text} {self.more}".strip() for text in texts]
    return said, np.ones(len(given), int)

  def name(self, vector) -> str:
    cosines = self.units @ (vector / max(np.linalg.norm(vector), 1e-9))
    return str(int(cosines.argmax())) if cosines.max() > 0.999 else "99"

  def reconstruct(self, texts, *, batch):
    """The activation that a text names; the first axis where it names none."""
    self.read.append(list(texts))
    known = {str(i): unit for i, unit in enumerate(self.units)}
    if self.ar == "one lower":
      known = {str(i + 1): unit for i, unit in enumerate(self.units)}

    def named(text) -> np.ndarray:
      words = (text or "").split()
      words = words if self.ar == "any" else words[:1]
      return next((known[word] for word in words if word in known), np.eye(WIDTH)[0])

    return np.array([named(text) for text in texts])

  def score_answers(self, params, given, tokens):
    named = (given @ self.units.T.astype(np.float32)).argmax(axis=1)
    own = named[:, None] == tokens
    logprob = -jnp.where(own, OWN, OTHER)
    return TokenScores(logprob, jnp.zeros_like(logprob))


def _units(given):
  return given / np.linalg.norm(given, axis=1, keepdims=True)
