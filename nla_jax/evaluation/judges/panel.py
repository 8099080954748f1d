"""The judges of words that an evaluation has: what is offline always, the rest where it is installed or paid for."""

import weakref

import numpy as np

from nla_jax.autoencoder.text import decode
from nla_jax.errors import NLAError
from nla_jax.evaluation.judges import minilm
from nla_jax.evaluation.judges.embeddings import Embeddings, mean_states
from nla_jax.evaluation.judges.frozen_target import FrozenTarget
from nla_jax.evaluation.judges.judge import Judge
from nla_jax.evaluation.judges.language_model import LanguageModelJudge
from nla_jax.evaluation.judges.provider import Client, read_provider
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import LeftOutError
from nla_jax.progress import say

_REFERENCE = 200  # texts that embeddings are whitened by
_REFERENCE_TOKENS = 32  # of each
# Judges hold what they have read, so the next suite gets the same ones.
_PANELS: weakref.WeakKeyDictionary[Subject, list[Judge]] = weakref.WeakKeyDictionary()


def word_judges(subject: Subject) -> list[Judge]:
  """Judges of options that read words alone, the frozen target first.

  Raises:
    LeftOutError: there is no base model to read with.
  """
  if subject not in _PANELS:
    _PANELS[subject] = _made(subject)
  return _PANELS[subject]


def _made(subject: Subject) -> list[Judge]:
  nla, tokenizer = subject.nla, subject.nla.pair.tokenizer
  try:
    target = nla.whole_target
  except NLAError as error:
    raise LeftOutError(str(error)) from None

  # W1, and W2 in the middle of the same model.
  reference = reference_texts(subject)
  middle = target.model.architecture.n_layers // 2
  states = mean_states(target, tokenizer, middle)
  judges: list[Judge] = [
    FrozenTarget(target, tokenizer),
    Embeddings("target's states", states, reference),
  ]

  embed = minilm.load_embedder()
  if embed is None:
    say(f"eval: no judge {minilm.NAME}, since it is not installed ({minilm.INSTALL})")
  else:
    judges.append(Embeddings(minilm.NAME, embed))
  if subject.settings.judge:
    provider = read_provider(subject.settings.judge)
    judges.append(LanguageModelJudge(Client(provider), provider.model))
  return judges


def reference_texts(subject: Subject) -> list[str]:
  """Pieces of documents that are not evaluated, of as many documents as there are up to a few hundred."""
  documents, tokenizer = subject.store.documents, subject.nla.pair.tokenizer
  others = [i for i, split in enumerate(documents.splits) if split != "held_out"]
  generator = np.random.default_rng(subject.seed)
  chosen = generator.permutation(others)[:_REFERENCE]
  found = []
  for i in chosen:
    tokens = documents[int(i)].tokens
    start = int(generator.integers(max(len(tokens) - _REFERENCE_TOKENS, 0) + 1))
    text = decode(tokenizer, tokens[start : start + _REFERENCE_TOKENS]).strip()
    if text:
      found.append(text)
  return found
