"""Trains a top-k sparse autoencoder on activations; a training that was stopped goes on where it last saved.

Activations are scaled to length √d, so its FVE is that of an NLA: of directions. Latents that nothing has switched on
for a while are given what the others leave unexplained (AuxK). Decoder rows have length 1 after every step.
Source: Gao et al., Scaling and evaluating sparse autoencoders, 2024.
"""

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nla_jax.bucket import Place
from nla_jax.evaluation import fits
from nla_jax.evaluation.sae.autoencoder import (
  CONSTANT_NORM,
  SAE,
  TOP_K,
  Kind,
  activated,
  before_activation,
  decoded,
  least_of_largest,
)

_RATE, _AUXILIARY = 1e-3, 1 / 32  # of Adam; weight of the loss of dead latents
_SAVE_SECONDS = 30.0


class Size(NamedTuple):
  """What is trained.

  Attributes:
    latents: m.
    k: latents that are on.
    steps: of Adam.
    batch: rows of a step.
    dead_after: steps in which a latent was never on, after which it counts as dead.
    seed: of the start and of batches.
  """

  latents: int
  k: int
  steps: int
  batch: int = 512
  dead_after: int = 50
  seed: int = 0

  @property
  def kind(self) -> Kind:
    """How it computes."""
    return Kind(TOP_K, self.k, minus_bias=True, scaling=CONSTANT_NORM)


class _State(NamedTuple):
  """A training after some steps: parameters by name, Adam's state, steps since each latent [m] was on."""

  params: Any
  adam: Any
  silent: Any


def train(
  rows: np.ndarray, size: Size, file: Place | None = None, origin: Mapping[str, Any] | None = None
) -> SAE:
  """Trains on activations [n, d].

  Args:
    rows: what is trained on.
    size: of it.
    file: where it saves now and then, and where an earlier call may have; None for nowhere.
    origin: JSON values that tell this training from others.
  """
  origin = {**(origin or {}), **size._asdict(), "rows": len(rows)}

  # 1. Where an earlier call was stopped.
  state, done = fits.restored(file, origin, _start(rows, size))

  # 2. Each step's batch depends on its number alone, so a training that goes on is the same training.
  saved = time.monotonic()
  for step in range(done, size.steps):
    chosen = np.random.default_rng((size.seed, step)).integers(len(rows), size=size.batch)
    rate = min(1.0, (size.steps - step) / (0.2 * size.steps))
    state = _step(state, rows[chosen], rate, size=size)
    last = step + 1 == size.steps
    if last or time.monotonic() - saved > _SAVE_SECONDS:
      fits.save(file, origin, state, step + 1)
      saved = time.monotonic()

  p = {name: np.asarray(one) for name, one in state.params.items()}
  threshold = np.zeros(size.latents, np.float32)
  return SAE(size.kind, p["w_enc"], p["b_enc"], p["w_dec"], p["b_dec"], threshold)


def _start(rows: np.ndarray, size: Size) -> _State:
  d = rows.shape[1]
  random = np.random.default_rng(size.seed)
  w_dec = random.normal(size=(size.latents, d)).astype(np.float32)
  w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
  some = rows[random.integers(len(rows), size=4096)]
  lengths = np.linalg.norm(some, axis=1, keepdims=True)

  params = {
    "w_enc": w_dec.T.copy(),
    "b_enc": np.zeros(size.latents, np.float32),
    "w_dec": w_dec,
    # What is common to all activations is no feature.
    "b_dec": (some / np.maximum(lengths, 1e-12)).mean(axis=0) * np.float32(d**0.5),
  }
  return _State(params, _adam().init(params), np.zeros(size.latents, np.int32))


def _adam() -> optax.GradientTransformation:
  return optax.adam(_RATE)


@functools.partial(jax.jit, static_argnames="size")
def _step(state: _State, x, rate, *, size: Size) -> _State:
  kind, dead = size.kind, state.silent > size.dead_after

  def loss(params):
    arrays = (*(params[name] for name in ("w_enc", "b_enc", "w_dec", "b_dec")), None)
    values = before_activation(arrays, x, kind)
    latents = activated(arrays, values, kind)

    # In units of the scaled activations, whose mean square is 1.
    unit = jnp.linalg.norm(x, axis=1, keepdims=True) / x.shape[1] ** 0.5
    left = (x - decoded(arrays, latents, x, kind)) / jnp.maximum(unit, 1e-12)
    plain = jnp.mean(left**2)
    extra = _of_the_dead(params["w_dec"], values, dead, jax.lax.stop_gradient(left))
    return plain + _AUXILIARY * extra, jnp.any(latents > 0, axis=0)

  gradient, on = jax.grad(loss, has_aux=True)(state.params)
  updates, adam = _adam().update(gradient, state.adam)
  params = optax.apply_updates(state.params, jax.tree.map(lambda one: rate * one, updates))

  lengths = jnp.linalg.norm(params["w_dec"], axis=1, keepdims=True)
  params = {**params, "w_dec": params["w_dec"] / jnp.maximum(lengths, 1e-12)}
  return _State(params, adam, jnp.where(on, 0, state.silent + 1))


def _of_the_dead(w_dec, values, dead, left):
  """The error of rebuilding what is left from the dead latents alone; 0 where none is dead."""

  def error(_):
    n = min(left.shape[1] // 2, len(dead))
    mine = jnp.where(dead, values, -jnp.inf)
    kept = jnp.where(mine >= least_of_largest(mine, n), jnp.maximum(values, 0.0), 0.0)
    return jnp.mean((left - jnp.where(dead, kept, 0.0) @ w_dec) ** 2)

  return jax.lax.cond(jnp.any(dead), error, lambda _: 0.0, None)
