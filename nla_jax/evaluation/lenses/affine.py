"""The affine lens: h + A h + b, so that the output layer says of it what the whole target says.

1. Ridge regression of the last block's residual on block K's, towards the identity. It is exact and costs seconds.
2. Adam on the KL divergence of the lens's next-token distribution from the target's own, from there on.
Documents that neither has seen choose the penalty, and whether the second improved on the first.
Source: Belrose et al., Eliciting Latent Predictions from Transformers with the Tuned Lens, 2023.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nla_jax.evaluation.lenses.lens import Lens, logits
from nla_jax.evaluation.lenses.samples import Samples
from nla_jax.reading.complete import Target

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of ridge, in variances of a standardised input
_HELD = 0.2  # of the documents
_HELD_ROWS = 256  # at most, that divergences are measured on
_BATCH, _RATE, _EVERY = 256, 1e-3, 20  # rows of a step, its size, and steps between two looks


class Scales(NamedTuple):
  """What makes inputs and differences comparable over dimensions: residuals have a few that dwarf all others.

  Attributes:
    mean: [d] of the inputs.
    deviation: [d] of the inputs.
    gain: [d], deviation of what the later blocks add.
  """

  mean: np.ndarray
  deviation: np.ndarray
  gain: np.ndarray


class Fitted(NamedTuple):
  """A fitted lens and what it cost.

  Attributes:
    lens: the map.
    kl: nats by which its distribution diverges from the target's, on held-out documents.
    kl_identity: the same of the logit lens.
  """

  lens: Lens
  kl: float
  kl_identity: float


def fit(target: Target, samples: Samples, *, steps: int, seed: int) -> Fitted:
  """Fits an affine lens.

  Args:
    target: whose output layer reads.
    samples: residuals of at least two documents.
    steps: of Adam; 0 for ridge alone.
    seed: of the documents that are held aside, and of batches.
  """
  # 1. Whole documents are held aside: tokens of one document are alike.
  random = np.random.default_rng(seed)
  names = random.permutation(np.unique(samples.documents))
  aside = np.isin(samples.documents, names[: max(int(_HELD * len(names)), 1)])
  training = Samples(*(one[~aside] for one in samples))
  rows = random.permutation(np.flatnonzero(aside))[:_HELD_ROWS]
  held = Samples(*(one[rows] for one in samples))

  # 2. Ridge: the penalty by what the output layer makes of it, not by squared error.
  scales = _scales(training)
  tried = [_ridge(training, scales, penalty) for penalty in _PENALTIES]
  found = min((divergence(target, _lens(one, scales), held), i) for i, one in enumerate(tried))
  best, params = found[0], tried[found[1]]

  # 3. Adam; the best of what it passes.
  for one in _descend(target, training, scales, params, steps, random):
    now = divergence(target, _lens(one, scales), held)
    best, params = min((best, params), (now, one), key=lambda pair: pair[0])

  identity = divergence(target, Lens(), held)
  if identity <= best:
    return Fitted(Lens(), identity, identity)
  return Fitted(_lens(params, scales), best, identity)


def divergence(target: Target, lens: Lens, samples: Samples) -> float:
  """Mean KL divergence in nats of what the output layer reads through a lens, from the target's own distribution."""
  architecture, found = target.model.architecture, []
  for start in range(0, len(samples.read), _BATCH):
    part = slice(start, start + _BATCH)
    mapped = lens.of(samples.read[part])
    found.append(
      _divergences(target.params["base"], mapped, samples.final[part], architecture=architecture)
    )
  return float(jnp.mean(jnp.concatenate(found)))


def _scales(training: Samples) -> Scales:
  gain = training.final - training.read
  return Scales(
    training.read.mean(axis=0), training.read.std(axis=0) + 1e-6, gain.std(axis=0) + 1e-6
  )


def _ridge(training: Samples, scales: Scales, penalty: float) -> dict[str, np.ndarray]:
  x = ((training.read - scales.mean) / scales.deviation).astype(np.float64)
  y = ((training.final - training.read) / scales.gain).astype(np.float64)
  middle = y.mean(axis=0)
  gram = x.T @ x / len(x) + penalty * np.eye(x.shape[1])
  matrix = np.linalg.solve(gram, x.T @ (y - middle) / len(x))
  return {"matrix": matrix.astype(np.float32), "bias": middle.astype(np.float32)}


def _lens(params: Any, scales: Scales) -> Lens:
  """The lens of a map between standardised inputs and differences."""
  matrix = np.asarray(params["matrix"]) / scales.deviation[:, None] * scales.gain
  bias = np.asarray(params["bias"]) * scales.gain - scales.mean @ matrix
  return Lens((np.eye(len(bias)) + matrix.T).astype(np.float32), bias.astype(np.float32))


def _descend(
  target: Target,
  training: Samples,
  scales: Scales,
  params: Any,
  steps: int,
  random: np.random.Generator,
) -> Iterator[Any]:
  """Parameters every few steps of Adam."""
  state = optax.adam(_RATE).init(params)
  base, architecture = target.params["base"], target.model.architecture
  for step in range(steps):
    rows = random.integers(len(training.read), size=_BATCH)
    batch = training.read[rows], training.final[rows]
    rate = 1 - step / steps
    params, state = _step(base, scales, params, state, batch, rate, architecture=architecture)
    if (step + 1) % _EVERY == 0 or step + 1 == steps:
      yield params


@functools.partial(jax.jit, static_argnames="architecture")
def _step(base: Any, scales: Scales, params: Any, state: Any, batch, rate, *, architecture):
  read, final = batch

  def loss(params):
    x = (read - scales.mean) / scales.deviation
    mapped = read + (x @ params["matrix"] + params["bias"]) * scales.gain
    return jnp.mean(_kl(base, mapped, final, architecture))

  gradient = jax.grad(loss)(params)
  updates, state = optax.adam(_RATE).update(gradient, state)
  return optax.apply_updates(params, jax.tree.map(lambda one: rate * one, updates)), state


@functools.partial(jax.jit, static_argnames="architecture")
def _divergences(base: Any, mapped, final, *, architecture):
  return _kl(base, mapped, final, architecture)


def _kl(base: Any, mapped, final, architecture):
  """[n] KL divergence of the distribution at `mapped` from the one at `final`."""
  own = jax.nn.log_softmax(logits(base, final, architecture))
  read = jax.nn.log_softmax(logits(base, mapped, architecture))
  return jnp.sum(jnp.exp(own) * (own - read), axis=-1)
