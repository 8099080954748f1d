"""A toy pair whose claims are known: of a document's words it names some, and invents others.

What it knows it says at every position and in every draw; what it invents is another word each time. A liar says, as
steadily, what it knows of another document.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
from support.coded_pair import WordTokenizer

from nla_jax.autoencoder.prompts import wrap_explanation
from nla_jax.autoencoder.text import encode
from nla_jax.data.store.documents import StoredDocument
from nla_jax.evaluation.claims.parse import claims_of
from nla_jax.evaluation.settings import Settings
from nla_jax.evaluation.subject import Explanations, Subject
from nla_jax.models.token_scores import TokenScores

WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
INVENTED = 8 / 26  # share of invented words that are true by luck
DOCUMENTS, PER_DOCUMENT, KNOWN, SAID, LENGTH = 30, 4, 8, 4, 16


class ClaimingNLA:
  """What the suites ask of an NLA.

  Attributes:
    known: of each document the words that it holds.
    says: the document whose words the AV names of each document.
    invents: words that each explanation makes up.
  """

  def __init__(self, liar, invents=2, seed=0):
    random = np.random.default_rng(seed)
    self.known = [random.choice(WORDS, KNOWN, replace=False).tolist() for _ in range(DOCUMENTS)]
    self.says = np.roll(np.arange(DOCUMENTS), 1) if liar else np.arange(DOCUMENTS)
    self.invents, self.tokenizer = invents, WordTokenizer()
    self.av_params, self.ar_params = {}, {}
    self.directions = dict(zip(WORDS, random.normal(size=(len(WORDS), 64))))
    self.vectors = np.array([sum(self.directions[w] for w in words) for words in self.known])
    self.draw = np.random.default_rng(seed + 1)
    prompts = SimpleNamespace(
      answer_ids=lambda tokenizer, text: encode(tokenizer, wrap_explanation(text)), stop_id=0
    )
    self.pair = SimpleNamespace(
      tokenizer=self.tokenizer,
      prompts=prompts,
      sample_explanations=self.sample_explanations,
      score_answers=self.score_answers,
    )

  def document_of(self, vector):
    return int(np.square(self.vectors - vector).sum(axis=1).argmin())

  def write(self, vector):
    knows = self.known[self.says[self.document_of(vector)]][:SAID]
    invented = self.draw.choice(WORDS, self.invents, replace=False).tolist()
    return f"About: {', '.join(self.draw.permutation(knows + invented))}"

  def sample_explanations(self, params, vectors, key, *, batch, greedy, on_batch):
    on_batch(len(vectors))
    return [self.write(vector) for vector in vectors], np.full(len(vectors), 6)

  def activations(self, texts, positions):
    words = [self.tokenizer.decode(text).split() for text in texts]
    owners = [int(text[0].removeprefix("document")) for text in words]
    return [
      np.repeat(self.vectors[i][None], len(places), axis=0).astype(np.float32)
      for i, places in zip(owners, positions)
    ]

  def reconstruct(self, texts, batch):
    """The sum of the words' directions."""
    nothing = np.full(64, 0.1)
    return np.array(
      [
        sum((self.directions.get(one.text, 0) for one in claims_of(text)), nothing)
        for text in texts
      ]
    )

  def score_answers(self, params, vectors, tokens):
    logprob = -1.0 - 0.1 * (jnp.asarray(tokens) % 7)
    return TokenScores(logprob, jnp.zeros_like(logprob))


def claiming_subject(liar, preset="standard", **options):
  """A subject whose teacher names words of the document, and whose AV knows some and invents some."""
  nla, random = ClaimingNLA(liar, **options), np.random.default_rng(5)
  documents, positions = [], []
  for i in range(DOCUMENTS * PER_DOCUMENT):
    of = i // PER_DOCUMENT
    # All of them stand before the first position that is read.
    said = [*random.permutation(nla.known[of]), *random.choice(nla.known[of], LENGTH - KNOWN)]
    tokens = nla.tokenizer(f"document{of} {' '.join(said)}")["input_ids"]
    documents.append(StoredDocument(f"d{i}", f"g{of}", "held_out", np.array(tokens)))
    positions.append(LENGTH - i % 3)

  n = len(documents)
  vectors = np.repeat(nla.vectors, PER_DOCUMENT, axis=0)
  units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  subject = Subject(
    nla=nla,
    before_rl=None,
    store=None,
    texts={i: f"About: {', '.join(nla.known[i // PER_DOCUMENT][:3])}" for i in range(n)},
    rows=np.arange(n),
    activations=vectors.astype(np.float32),
    documents=documents,
    positions=np.array(positions),
    training_rows=np.zeros(0, int),
    training_activations=np.zeros((0, 64)),
    baseline=float(np.square(units - units.mean(axis=0)).sum(axis=1).mean()),
    settings=Settings(bootstrap_samples=200, preset=preset),
  )
  texts = [nla.write(vector) for vector in vectors]
  subject.__dict__["sampled"] = Explanations(texts, np.full(n, 6))
  subject.__dict__["rebuilt"] = nla.reconstruct(texts, 64)
  return subject
