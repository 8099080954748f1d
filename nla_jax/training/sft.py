"""Supervised fine-tuning on the teacher's text: the AV learns to write it from the vector, the AR to read it back.

Both are one loop over Grain batches with a guarded AdamW update; they differ in their loss.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nla_jax.autoencoder.fve import mse_nrm
from nla_jax.autoencoder.pair import Pair
from nla_jax.data.loader import StoreRows, batches
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed, sharding
from nla_jax.progress import MetricsLog, Progress
from nla_jax.training import losses
from nla_jax.training.accumulation import gradient
from nla_jax.training.checkpoint import Checkpoints, decode_loader, encode_loader
from nla_jax.training.optimizer import (
  TrainState,
  check_guard,
  create_state,
  guarded_update,
  make_optimizer,
)


def av_loss(params, batch: dict[str, jax.Array], pair: Pair):
  """Nats a supervised token. batch: activations [n, d], tokens [n, length], mask [n, length]."""
  scores = pair.score_answers(params, batch["activations"], batch["tokens"])
  return losses.sft_loss(scores, batch["mask"])


def ar_loss(params, batch: dict[str, jax.Array], pair: Pair):
  """Mean mse_nrm. batch: activations [n, d], tokens [n, length], lengths [n]."""
  rebuilt = pair.rebuild(params, batch["tokens"], batch["lengths"])
  return jnp.mean(mse_nrm(rebuilt, batch["activations"]))


class Run(NamedTuple):
  """Where a training run lives and how it reports.

  Attributes:
    name: shown beside the bar.
    folder: for metrics and checkpoints.
    settings: the config's `optimizer` of this model.
    seed: of the loader.
    checkpoint_every: updates.
    guard_limit: skipped updates in a row that stop the run.
    note_progress: called after each checkpoint.
  """

  name: str
  folder: Path
  settings: Any
  seed: int
  checkpoint_every: int
  guard_limit: int
  note_progress: Callable[[], None]


def make_update(loss: Callable, optimizer: optax.GradientTransformation, settings):
  """The compiled update (state, batch) -> (state, loss, gradient norm); the state is donated."""
  tokens = lambda part: (
    losses.mask_count(part["mask"]) if "mask" in part else 1.0
  )  # what a loss is the mean over

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state: TrainState, batch):
    found = gradient(
      lambda params, part: (loss(params, part), ((), ())),
      state.params,
      batch,
      parts=settings.accumulate,
      weight=tokens,
    )
    state, norm = guarded_update(state, found.grads, optimizer, settings.clip, settings.skip_above)
    return state, found.value, norm

  return update


def fit(
  run: Run, params, loss: Callable, examples: StoreRows, watch: Callable[[Any], dict[str, float]]
):
  """Trains `params` on `loss(params, batch)` and returns them.

  `watch(params)` is what the curve shows besides the loss; it is called six times, first and last step included.
  Stopped at any moment and called again, it goes on from its last checkpoint with the same batches.
  """
  settings = run.settings
  optimizer = make_optimizer(settings, settings.steps)
  state = jax.jit(functools.partial(create_state, optimizer=optimizer), donate_argnums=0)(params)
  update = make_update(loss, optimizer, settings)
  checkpoints = Checkpoints(run.folder / "checkpoints")
  rows = min(settings.batch, len(examples))
  if rows % settings.accumulate:
    raise NLAError(
      f"{run.name}: {settings.accumulate} parts (config.{run.name.split()[-1]}.accumulate) do not divide a batch of "
      f"{rows} examples"
    )
  stream = batches(examples, batch_size=rows, seed=run.seed, part=sharding.local_rows(rows))
  start, found = 0, checkpoints.restore(state)
  if found is not None:
    state, loop = found
    start = loop["step"]
    stream.set_state(decode_loader(loop["loader"], stream.get_state()))
  log = MetricsLog(run.folder, start)
  progress = Progress(run.name, settings.steps, "step", start)
  watched = {round(i * settings.steps / 5) for i in range(6)}
  for step in range(start, settings.steps):
    extra = watch(state.params) if step in watched else {}
    state, value, norm = update(state, sharding.shard_rows(next(stream), rows))
    log.write(step, loss=value, gradient_norm=norm, skipped=state.skipped, **extra)
    progress.advance(loss=float(value), **extra)
    check_guard(state, run.guard_limit, run.name)
    stop = distributed.preempted()
    if (stop or (step + 1) % run.checkpoint_every == 0) and step + 1 < settings.steps:
      checkpoints.save(
        step + 1, state, {"step": step + 1, "loader": encode_loader(stream.get_state())}
      )
      run.note_progress()
    if stop:
      checkpoints.close()
      raise distributed.PreemptedError(
        f"{run.name} stopped after step {step + 1} of {settings.steps}"
      )
  log.write(settings.steps, **watch(state.params))
  log.close()
  progress.close()
  checkpoints.close()
  return state.params


def watch_av(
  pair: Pair, vectors: np.ndarray, answers, batch: int = 16
) -> Callable[[Any], dict[str, float]]:
  """The AV's held-out loss with each row's own vector and with the next row's: how much it reads from the vector."""
  score = jax.jit(functools.partial(av_loss, pair=pair))

  def watch(params) -> dict[str, float]:
    def mean(given: np.ndarray) -> float:
      parts = [slice(i, i + batch) for i in _starts(len(given), batch)]
      rows = lambda part: {
        "activations": given[part],
        "tokens": answers.tokens[part],
        "mask": answers.mask[part],
      }
      return float(np.mean([score(params, sharding.shard_rows(rows(part))) for part in parts]))

    return {"loss_own": mean(vectors), "loss_shuffled": mean(np.roll(vectors, 1, axis=0))}

  return watch


def watch_ar(
  pair: Pair, vectors: np.ndarray, texts: list[str], baseline: float
) -> Callable[[Any], dict[str, float]]:
  """The AR's FVE on the teacher's text of held-out activations."""

  def watch(params) -> dict[str, float]:
    errors = mse_nrm(jnp.asarray(pair.reconstruct(params, texts, batch=32)), jnp.asarray(vectors))
    return {"fve": 1 - float(jnp.mean(errors)) / baseline}

  return watch


def _starts(n: int, batch: int) -> Iterator[int]:
  return iter(range(0, n - n % batch or n, batch))
