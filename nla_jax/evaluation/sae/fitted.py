"""The sparse autoencoder of an evaluation: the one that its settings name, or one trained on its training rows."""

import time
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.evaluation import fits
from nla_jax.evaluation.sae import features, files, train
from nla_jax.evaluation.sae.autoencoder import SAE
from nla_jax.evaluation.sae.features import Features
from nla_jax.evaluation.subject import Subject
from nla_jax.parallel import sharding
from nla_jax.progress import say

FEWEST = 1000  # training rows, below which an autoencoder learns them by heart
_K = 32
_STEPS, _STEPS_PER_ITEM = 300, 5


class Reader(NamedTuple):
  """An autoencoder and what it is known by.

  Attributes:
    sae: the autoencoder.
    features: its latents over the training rows.
    fve: held-out FVE of what it rebuilds.
    l0: mean number of latents that are on, held out.
  """

  sae: SAE
  features: Features
  fve: float
  l0: float


def reader(subject: Subject) -> Reader | None:
  """The autoencoder of a subject; None where there are too few training rows to train one or to name its latents.

  Raises:
    NLAError: the files that the settings name are none of this model and block.
  """
  if len(subject.training_rows) < FEWEST or sharding.has_mesh():
    return None
  if "sae" not in subject.kept:
    subject.kept["sae"] = _made(subject)
  return subject.kept["sae"]


def texts(subject: Subject, vectors: np.ndarray) -> dict[str, list[str]]:
  """The row `sae`: the contexts of the strongest latents of activations [n, d]."""
  found = reader(subject)
  if found is None:
    return {}
  tokenizer = subject.nla.pair.tokenizer
  contexts = features.Contexts(subject.store, subject.training_rows, tokenizer)
  return {"sae": features.texts(found.features, found.sae.encode(vectors), contexts)}


def _made(subject: Subject) -> Reader:
  start = time.monotonic()
  sae = _sae(subject)
  documents = subject.store.read("document", subject.training_rows)
  over = features.over(sae, subject.training_activations, documents)

  # On the rows of the evaluation, which no autoencoder of ours has seen.
  rebuilt, latents = (
    sae.reconstruct(subject.activations),
    sae.encode(subject.activations),
  )
  left = float(np.mean(fve.mse_nrm(rebuilt, subject.activations)))
  found = Reader(sae, over, 1 - left / subject.baseline, float((latents > 0).sum(axis=1).mean()))
  say(
    f"eval: SAE of {len(sae.b_enc)} latents: held-out FVE {found.fve:.3f}, {found.l0:.1f} on at once, "
    f"{over.dead} never on in {len(documents)} training rows ({time.monotonic() - start:.0f} s)"
  )
  return found


def _sae(subject: Subject) -> SAE:
  if subject.settings.sae:
    layer = subject.nla.pair.layer
    return files.load(subject.settings.sae, width=subject.store.d, layer=layer)
  rows = subject.training_activations
  origin = fits.origin_of(subject, {})
  return train.train(rows, size_for(subject), fits.file_of(subject, "sae"), origin)


def size_for(subject: Subject) -> train.Size:
  """The usual size, with more steps in the larger presets."""
  return size_of(subject.store.d, _STEPS_PER_ITEM * subject.settings.items, subject.seed)


def size_of(width: int, more_steps: int = 0, seed: int = 0) -> train.Size:
  """Four to eight latents a dimension."""
  latents = 1 << (8 * width).bit_length() - 1
  return train.Size(latents, min(_K, width // 4), _STEPS + more_steps, seed=seed)
