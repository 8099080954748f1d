"""The SAE of the game: trained on the base's activations, or read from files; latents are named by their contexts."""

from pathlib import Path
from typing import Any

import numpy as np

from nla_jax import files
from nla_jax.bucket import place
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.evaluation.sae import features, train
from nla_jax.evaluation.sae.files import load
from nla_jax.evaluation.sae.fitted import FEWEST, size_of
from nla_jax.progress import say
from nla_jax.workdir import STORE

ROWS = 20_000  # of the store, at most
_FILE = "sae.npz"


def open_store(path: str) -> Store:
  """The store of a workdir, or the store that lies there. Raises NLAError where there is none."""
  below = place(files.here(path)) / STORE
  return Store(str(below if below.is_dir() else path))


class StoreFeatures:
  """Names of what is active in an activation, from the contexts of a store of the base.

  Args:
    store: activations of the base at the pair's block, with their documents.
    nla: the base's pair.
    folder: in which the training is kept.
    sae: folder with the files of an SAE (Gemma Scope 2 or SAELens); "" trains one on the store.

  Raises:
    NLAError: the store is of another width or block or is small, or the files are of another model.
  """

  def __init__(self, store: Store, nla: Any, folder: Path, sae: str = ""):
    layer, width = nla.pair.layer, nla.pair.verbalizer.architecture.d_model
    _check(store, layer, width)
    rows = np.arange(len(store))
    if len(rows) > ROWS:
      rows = np.sort(np.random.default_rng(0).choice(rows, ROWS, replace=False))
    activations = store.read("activations", rows)

    if sae:
      self._sae = load(sae, width=width, layer=layer)
    else:
      origin = {"store": store.manifest.get("content_hash"), "layer": layer}
      self._sae = train.train(activations, size_of(width), folder / _FILE, origin)
    self._over = features.over(self._sae, activations, store.read("document", rows))
    self._contexts = features.Contexts(store, rows, nla.pair.tokenizer)
    say(
      f"audit: SAE of {len(self._sae.b_enc)} latents, {self._over.dead} never on in {len(rows)} rows"
    )

  def labels(self, activations: np.ndarray) -> list[str]:
    """Of each activation [n, d_model] the contexts of its strongest latents."""
    return features.texts(self._over, self._sae.encode(activations), self._contexts)


def _check(store: Store, layer: int, width: int) -> None:
  of = store.manifest.get("layer", layer)
  if (store.d, of) != (width, layer):
    raise NLAError(
      f"the activations of --store are {store.d} wide and of block {of}, the pair reads {width} of block {layer}: "
      "extract the base's with the pair's config"
    )
  if len(store) < FEWEST:
    raise NLAError(
      f"--store has {len(store)} rows, and an SAE needs {FEWEST} at least: extract more documents"
    )
