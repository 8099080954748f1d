"""How the AR best learns the AV's own text before RL: updates of different sizes and rates, from one SFT result.

  python benchmarks/ar_on_own_text.py WORKDIR [--batches=5] [--held-out=64]

WORKDIR has extract, teach and sft; nothing is written there but the folder's lock. The AV of SFT explains `--batches`
× 64 activations of the RL split and some held-out ones, each once. Every variant then trains the same AR on the same
texts in the same order, and is scored on the held-out texts after each 64. Rates are constant.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.fve import fve
from nla_jax.config import load_config
from nla_jax.data.loader import batches
from nla_jax.models.lora import split
from nla_jax.run.run import begin
from nla_jax.run.training_stages import injection_scale, rl_examples, rl_start
from nla_jax.training.learner import Learner, ReconstructionBatch
from nla_jax.training.rl import step_seeds

BATCH, SEED = 64, 7


class Variant(NamedTuple):
  """Texts an update, the learning rate, and how often all texts are seen."""

  texts: int
  rate: float
  epochs: int = 1


VARIANTS = (Variant(64, 2e-4), Variant(64, 8e-4), Variant(16, 2e-4), Variant(16, 4e-4, 2))


def explained(pair, av_params, activations: np.ndarray, number: int) -> ReconstructionBatch:
  """One sampled explanation of each activation, as the AR reads it."""
  ids = np.arange(len(activations), dtype=np.int32)
  rollout = pair.roll_out(av_params, activations, step_seeds(SEED, number).key, ids)
  inputs = pair.encode(pair.parse_answers(jax.block_until_ready(rollout)))
  return ReconstructionBatch(inputs.tokens, inputs.lengths, activations, inputs.fits)


def train(pair, config, start, texts, held_out, baseline, variant: Variant) -> tuple[list, float]:
  """Held-out FVE before and after each 64 texts, and the seconds of training."""
  settings = config.rl.copy_and_resolve_references()
  settings.ar.update(lr=variant.rate, schedule="constant", warmup=0)
  bases = {"av": split(start.av_params)[1], "ar": split(start.ar_params)[1]}
  learner = Learner(pair, settings, start.av_params, bases)
  # Train states take the memory of what they are made from.
  trained = jax.tree.map(jnp.copy, (split(start.av_params)[0], split(start.ar_params)[0]))
  states, curve, seconds = learner.create(*trained), [], 0.0

  def look() -> None:
    errors = learner.judge(learner.params(states, "ar"), *held_out[:3])
    curve.append(float(fve(np.asarray(errors)[np.asarray(held_out.fits)], baseline)))

  look()
  for batch in texts * variant.epochs:
    began = time.time()
    for first in range(0, BATCH, variant.texts):
      part = ReconstructionBatch(*(one[first : first + variant.texts] for one in batch))
      states, _, _ = learner.reconstruct_and_learn(states, part, None)
    seconds += time.time() - began
    look()
  return curve, seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
  parser.add_argument("workdir", type=Path)
  parser.add_argument("--batches", type=int, default=5)
  parser.add_argument("--held-out", type=int, default=64)
  options = parser.parse_args()

  config = load_config(options.workdir / "config.json", {"rl.watch_rows": options.held_out})
  with begin(config, options.workdir) as run:
    pair = run.pair(injection_scale(run))
    examples, start = rl_examples(run, pair), rl_start(run)
    stream = batches(examples.activations, batch_size=BATCH, seed=SEED)
    rows = [next(stream)["activations"] for _ in range(options.batches)]
    texts = [explained(pair, start.av_params, one, i) for i, one in enumerate(rows)]
    held_out = explained(pair, start.av_params, examples.held_out, options.batches)

    print("| texts an update | rate | FVE before, and after each 64 texts | s |\n|---|---|---|---|")
    for variant in VARIANTS:
      about = (pair, config, start, texts, held_out, examples.baseline, variant)
      curve, seconds = train(*about)
      shown = ", ".join(f"{value:.3f}" for value in curve)
      print(f"| {variant.texts} | {variant.rate:g} | {shown} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
  main()
