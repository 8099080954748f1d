"""Supervised fine-tuning on the teacher's text: the AV learns to write it from the vector, the AR to read it back.

Both are one loop over batches with a guarded AdamW update; they differ in their loss and in what is watched.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from ml_collections import FrozenConfigDict

from nla_jax.autoencoder.fve import fve, mse_nrm
from nla_jax.autoencoder.pair import Pair
from nla_jax.data.loader import StoreRows, batches
from nla_jax.errors import NLAError
from nla_jax.models.lora import joined, split
from nla_jax.parallel import sharding
from nla_jax.training import losses
from nla_jax.training.accumulation import gradient
from nla_jax.training.loop import Loop, Session
from nla_jax.training.optimizer import (
  TrainState,
  create_state,
  guarded_update,
  make_optimizer,
)

_WATCHES = 6  # points of the curve that show more than the loss


def av_loss(params, batch: dict[str, jax.Array], pair: Pair) -> Float[jax.Array, ""]:
  """Nats a supervised token. The batch has activations [n, d_model], tokens and mask [n, length]."""
  scores = pair.score_answers(params, batch["activations"], batch["tokens"])
  return losses.sft_loss(scores, batch["mask"])


def ar_loss(params, batch: dict[str, jax.Array], pair: Pair) -> Float[jax.Array, ""]:
  """Mean mse_nrm. The batch has activations [n, d_model], tokens [n, length] and lengths [n]."""
  rebuilt = pair.rebuild(params, batch["tokens"], batch["lengths"])
  return jnp.mean(mse_nrm(rebuilt, batch["activations"]))


def make_update(loss: Callable, optimizer: optax.GradientTransformation, settings):
  """The compiled update (state, batch, base) -> (state, loss, gradient norm); the state is donated.

  `base` is the frozen base of adapters, or None.

  Args:
    loss: function of (params, batch), a mean over the tokens of `batch["mask"]` or, without a mask, over the rows.
    optimizer: from `make_optimizer`.
    settings: the config's `optimizer` of this model.
  """
  settings = FrozenConfigDict(settings)

  def weight(micro_batch):
    return losses.mask_count(micro_batch["mask"]) if "mask" in micro_batch else 1.0

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state: TrainState, batch, base):
    def loss_alone(trained, micro_batch):
      return loss(joined(trained, base), micro_batch), ((), ())

    found = gradient(loss_alone, state.params, batch, accumulate=settings.accumulate, weight=weight)
    state, norm = guarded_update(state, found.grads, optimizer, settings.clip, settings.skip_above)
    return state, found.value, norm

  return update


def fit(
  session: Session,
  settings,
  params,
  loss: Callable,
  examples: StoreRows,
  watch: Callable[[Any], dict[str, float]],
):
  """Trains parameters on `loss(params, batch)` and returns them.

  Args:
    session: where the run lives; `session.name` ends with the model's name in the config, av or ar.
    settings: the config's `optimizer` of this model.
    params: where training starts; they are donated, but for the frozen base of adapters.
    loss: `av_loss` or `ar_loss` of a pair.
    examples: rows of the store with the columns that the loss reads.
    watch: function of the parameters: what the curve shows besides the loss. It is called six times, at the first
      step, after the last one, and evenly between.
  """
  # 1. State, compiled update and batches.
  rows = min(settings.batch, len(examples))
  if rows % settings.accumulate:
    key = f"config.{session.name.split()[-1]}.accumulate"
    raise NLAError(
      f"{session.name}: {key}={settings.accumulate} does not divide a batch of {rows} examples"
    )
  optimizer = make_optimizer(settings, settings.steps)
  trained, base = split(params)
  state = jax.jit(functools.partial(create_state, optimizer=optimizer), donate_argnums=0)(trained)
  update = make_update(loss, optimizer, settings)
  # Each process reads only the rows of a batch that its own devices hold.
  stream = batches(examples, batch_size=rows, seed=session.seed, part=sharding.local_rows(rows))

  # 2. Steps, from the newest checkpoint on.
  loop = Loop(session, settings.steps, [stream])
  state, _ = loop.restore(state)
  watched = {round(i * settings.steps / (_WATCHES - 1)) for i in range(_WATCHES)}
  for step in loop.remaining():
    # Before the update, so that the first point is that of the untrained model.
    extra = watch(joined(state.params, base)) if step in watched else {}
    state, value, norm = update(state, sharding.shard_rows(next(stream), rows), base)
    metrics = {"loss": value, "gradient_norm": norm, "skipped": state.skipped, **extra}
    loop.record(step, metrics, {"loss": value, **extra})
    loop.end_step(step, state)

  # 3. The last point of the curve.
  params = joined(state.params, base)
  loop.close(**watch(params))
  return params


def watch_av(
  pair: Pair, vectors: np.ndarray, answers, batch: int = 16
) -> Callable[[Any], dict[str, float]]:
  """Held-out loss of the AV given each row's own activation, and given the next row's.

  The difference of the two is how much the AV reads from the activation.
  """
  score = jax.jit(functools.partial(av_loss, pair=pair))
  # Whole batches only, which are one shape to compile; all rows where there are fewer than one batch.
  whole = len(vectors) - len(vectors) % batch or len(vectors)

  def mean_loss(params, given: np.ndarray) -> float:
    found = []
    for start in range(0, whole, batch):
      part = slice(start, start + batch)
      rows = {
        "activations": given[part],
        "tokens": answers.tokens[part],
        "mask": answers.mask[part],
      }
      found.append(score(params, sharding.shard_rows(rows)))
    return float(np.mean(found))

  def watch(params) -> dict[str, float]:
    return {
      "loss_own": mean_loss(params, vectors),
      "loss_shuffled": mean_loss(params, np.roll(vectors, 1, axis=0)),
    }

  return watch


def watch_ar(
  pair: Pair, vectors: np.ndarray, texts: list[str], baseline: float
) -> Callable[[Any], dict[str, float]]:
  """The AR's FVE on the teacher's text of held-out activations."""

  def watch(params) -> dict[str, float]:
    errors = mse_nrm(jnp.asarray(pair.reconstruct(params, texts, batch=32)), jnp.asarray(vectors))
    # The mean is the device's float32 one, as the loss has it; FVE is the host's, in float64.
    mean_error = np.array([float(jnp.mean(errors))])
    return {"fve": float(fve(mean_error, baseline))}

  return watch
