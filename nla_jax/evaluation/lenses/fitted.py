"""The lenses of an evaluation: fitted on its training documents, once."""

import time

import numpy as np

from nla_jax.evaluation import fits
from nla_jax.evaluation.lenses import affine, jacobian
from nla_jax.evaluation.lenses.lens import Lens
from nla_jax.evaluation.lenses.samples import draw_texts, read_samples
from nla_jax.evaluation.settings import PRESETS
from nla_jax.evaluation.subject import Subject
from nla_jax.parallel import sharding
from nla_jax.progress import say

_STEPS = 60  # of Adam
_DOCUMENTS, _MOST = 64, 512  # more than the preset's items, and at most
_JACOBIAN_LENGTH = 64  # tokens of a document whose derivative is taken
_FEWEST = 8  # documents, below which a map of d x d numbers is not worth its name


def lenses(subject: Subject) -> dict[str, Lens]:
  """The lenses by row of a table.

  The logit lens is always there; the others are where there is training text, and on one device.
  """
  found = {"logit_lens": Lens()}
  seen = draw_texts(subject.store.documents, _FEWEST, subject.seed)
  if len(seen) < _FEWEST or sharding.has_mesh():
    return found

  return found | {"affine_lens": _affine(subject), "jacobian_lens": _jacobian(subject)}


def _affine(subject: Subject) -> Lens:
  n = min(_DOCUMENTS + subject.settings.items, _MOST)

  def fit() -> fits.Arrays:
    start, target = time.monotonic(), subject.nla.whole_target
    texts = draw_texts(subject.store.documents, n, subject.seed)
    samples = read_samples(target, subject.nla.pair.layer, texts)
    found = affine.fit(target, samples, steps=_STEPS, seed=subject.seed)
    say(
      f"eval: affine lens on {len(samples.read)} tokens: {found.kl:.3f} nats from the target's own next token, "
      f"the logit lens {found.kl_identity:.3f} ({time.monotonic() - start:.0f} s)"
    )
    matrix, bias = found.lens
    d = samples.read.shape[1]
    return {
      "matrix": np.eye(d, dtype=np.float32) if matrix is None else matrix,
      "bias": np.zeros(d, np.float32) if bias is None else bias,
      "kl": np.array([found.kl, found.kl_identity]),
    }

  arrays = fits.fitted(subject, "affine_lens", {"documents": n, "steps": _STEPS}, fit)
  return Lens(arrays["matrix"], arrays["bias"])


def _jacobian(subject: Subject) -> Lens:
  n = max(subject.settings.items // PRESETS["quick"], 1)

  def fit() -> fits.Arrays:
    start = time.monotonic()
    texts = draw_texts(subject.store.documents, _MOST, subject.seed, _JACOBIAN_LENGTH)
    found = jacobian.fit(
      subject.nla.whole_target, subject.nla.pair.layer, texts, documents=n, seed=subject.seed
    )
    say(
      f"eval: Jacobian lens, {n} documents an output dimension ({time.monotonic() - start:.0f} s)"
    )
    # A store whose block is the last one has no block above it.
    return {"matrix": np.eye(subject.store.d) if found.matrix is None else found.matrix}

  made_from = {"documents": n, "length": _JACOBIAN_LENGTH}
  return Lens(fits.fitted(subject, "jacobian_lens", made_from, fit)["matrix"])
