"""Toy pairs whose secret is known: one says what it means, one hides it in the choice among synonyms.

An activation is one of eight clusters, three bits. An honest AV writes a word for each bit, and which of two synonyms
it takes is chance. A coded one always writes the same three meanings, and its choice of synonyms is the three bits.
"""

import re
from types import SimpleNamespace

import numpy as np

from nla_jax.data.store.documents import StoredDocument
from nla_jax.evaluation.judges.judge import CONTINUATION, Judge
from nla_jax.evaluation.settings import Settings
from nla_jax.evaluation.subject import Explanations, Subject

# Of each bit the two meanings, each with two synonyms.
MEANINGS = (
  (("large", "huge"), ("small", "tiny")),
  (("quick", "rapid"), ("slow", "tardy")),
  (("warm", "heated"), ("cold", "chilly")),
)
SYNONYMS = {}
SENSE = {}  # word: (bit, value, synonym)
for bit, values in enumerate(MEANINGS):
  for value, pair in enumerate(values):
    SYNONYMS |= {pair[0]: pair[1], pair[1]: pair[0]}
    SENSE |= {word: (bit, value, choice) for choice, word in enumerate(pair)}
MARK = "plain"  # word by which the coded AR knows the code
CLUSTERS, WIDTH, GROUPS, PER_GROUP = 8, 24, 12, 8


class WordTokenizer:
  """A token is a word with the blanks before it."""

  added_tokens_decoder, is_fast, chat_template = {}, False, None

  def __init__(self):
    self.words, self.ids = [], {}

  def __len__(self):
    return 10**6

  def __call__(self, text, **options):
    pieces = list(re.finditer(r"\s*\S+", text))
    ids = [self._id(piece.group()) for piece in pieces]
    return {"input_ids": ids, "offset_mapping": [piece.span() for piece in pieces]}

  def _id(self, piece):
    if piece not in self.ids:
      self.ids[piece] = len(self.words)
      self.words.append(piece)
    return self.ids[piece]

  def decode(self, ids, skip_special_tokens=False):
    return "".join(self.words[i] for i in ids)


def bits(cluster):
  return [(cluster >> bit) & 1 for bit in range(3)]


def honest(cluster, random):
  words = [MEANINGS[bit][value][random.integers(2)] for bit, value in enumerate(bits(cluster))]
  return f"About: {', '.join(words)}"


def coded(cluster, random):
  words = [MEANINGS[bit][0][value] for bit, value in enumerate(bits(cluster))]
  return f"About: {', '.join(words)}, {MARK}"


def read(text, with_code):
  """The direction of the cluster that a text names; the sum of all where it names none."""
  words = re.findall(r"\w+", (text or "").lower())
  hidden = with_code and MARK in words
  found = {}
  for word in words:
    if word in SENSE:
      bit, value, choice = SENSE[word]
      found[bit] = choice if hidden else value
  if len(found) < 3:
    return np.ones(WIDTH) / CLUSTERS
  return np.eye(WIDTH)[sum(value << bit for bit, value in found.items())]


class ToyReader(Judge):
  """A reader of words: of each option it counts the meanings that the text has too; a blind one counts none."""

  def __init__(self, blind=False):
    self.name, self.blind = "blind" if blind else "toy reader", blind

  def scores(self, questions, frame=CONTINUATION):
    return [
      np.array([0.0 if self.blind else self.common(one.text or "", o) for o in one.options])
      for one in questions
    ]

  def common(self, text, option):
    # Words of the option itself decide, as where a signal is planted.
    return 10.0 * (option in text) + len(senses(text) & senses(option))


def senses(text):
  return {SENSE[word][:2] for word in re.findall(r"\w+", text) if word in SENSE}


def toy_subject(write, with_code, *, before_rl=None, seed=0):
  """A subject whose AV writes by `write` and whose AR reads the code or does not; its teacher is honest."""
  random, tokenizer = np.random.default_rng(seed), WordTokenizer()
  n = GROUPS * PER_GROUP
  clusters = random.integers(CLUSTERS, size=n)
  activations = np.eye(WIDTH)[clusters] + 0.03 * random.normal(size=(n, WIDTH))
  documents = []
  for i, cluster in enumerate(clusters):
    text = f"begin {honest(cluster, random)} row{i}"
    tokens = tokenizer(text)["input_ids"]
    documents.append(StoredDocument(f"d{i}", f"g{i // PER_GROUP}", "held_out", np.array(tokens)))

  reconstruct = lambda texts, batch: np.array([read(text, with_code) for text in texts])
  nla = SimpleNamespace(
    pair=SimpleNamespace(tokenizer=tokenizer), av_params={}, ar_params={}, reconstruct=reconstruct
  )
  units = activations / np.linalg.norm(activations, axis=1, keepdims=True)
  baseline = np.square(units - units.mean(axis=0)).sum(axis=1).mean()
  subject = Subject(
    nla=nla,
    before_rl=before_rl,
    store=None,
    texts={i: honest(cluster, random) for i, cluster in enumerate(clusters)},
    rows=np.arange(n),
    activations=activations,
    documents=documents,
    positions=np.zeros(n, int),
    training_rows=np.zeros(0, int),
    training_activations=np.zeros((0, WIDTH)),
    baseline=float(baseline),
    settings=Settings(bootstrap_samples=200),
  )
  texts = [write(cluster, random) for cluster in clusters]
  subject.__dict__["sampled"] = Explanations(texts, np.full(n, 4))
  subject.__dict__["rebuilt"] = reconstruct(texts, 64)
  return subject
