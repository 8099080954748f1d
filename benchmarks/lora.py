"""Seconds of an SFT update of the AV and of the AR: all weights trained, and adapters on a frozen base, in turn.

  python benchmarks/lora.py [--config configs/smollm2_135m.py] [--batch 16] [--rounds 3] [--ranks 16,64]

Each round runs every variant once, in an order that alternates, so that a noisy machine slows all of them alike; the
ratio is the median over rounds of a variant's seconds over those of the full update in the same round.
"""

import argparse
import functools
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.config import load_config
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.lora import Lora, adapter_params, split
from nla_jax.models.parameters import as_base
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.parallel.precision import compute_dtype
from nla_jax.training.optimizer import create_state, make_optimizer
from nla_jax.training.sft import ar_loss, av_loss, make_update


class Variant(NamedTuple):
  """A way to train.

  Attributes:
    name: as the table has it.
    lora: the adapters, or None.
    remat: whether blocks are computed again in the backward pass.
  """

  name: str
  lora: Lora | None
  remat: bool


def variants(ranks: list[int]) -> list[Variant]:
  """All weights, then adapters of each rank; each with blocks computed again and with blocks kept."""
  found = []
  for remat in (True, False):
    kept = "recomputed" if remat else "kept"
    found.append(Variant(f"all weights, blocks {kept}", None, remat))
    found += [
      Variant(f"rank {rank}, blocks {kept}", Lora(rank, 2.0 * rank), remat) for rank in ranks
    ]
  return found


def pair_of(config, pretrained, variant: Variant) -> Pair:
  """The pair that a variant trains."""
  c = config.prompts
  prompts = make_prompts(pretrained.tokenizer, c.av, c.ar, c.marker or None)
  settings = PairSettings(
    layer=config.layer,
    scale=30.0,
    max_new_tokens=config.rl.max_new_tokens,
    dtype=compute_dtype(config.compute),
    remat=variant.remat,
    lora=variant.lora,
    ar_lora=variant.lora,
  )
  return make_pair(pretrained.architecture, pretrained.tokenizer, prompts, settings)


def batch_of(config, pair: Pair, model: str, n: int) -> dict:
  """Random activations and texts of the lengths that the config's SFT has."""
  random, d = np.random.default_rng(0), pair.verbalizer.architecture.d_model
  length = pair.ar_tokens if model == "ar" else config.teacher.max_tokens + 12
  batch = {
    "activations": random.normal(size=(n, d)).astype(np.float32),
    "tokens": random.integers(100, 40_000, (n, length)).astype(np.int32),
  }
  if model == "ar":
    return batch | {"lengths": np.full(n, length, np.int32)}
  return batch | {"mask": np.ones((n, length), bool)}


def step_of(config, pretrained, variant: Variant, model: str, n: int):
  """A function without arguments that runs one update and gives the bytes of what is trained."""
  pair, host = pair_of(config, pretrained, variant), jax.tree.map(jnp.array, pretrained.params)
  module = pair.verbalizer if model == "av" else pair.reconstructor
  adapters = None
  if variant.lora:
    adapters = adapter_params(module.architecture, variant.lora, jax.random.key(0))
    host = as_base(host)
  if model == "av":
    params = verbalizer_params(host, module.architecture.d_model, "scalar", adapters)
  else:
    params = reconstructor_params(host, config.layer, adapters)

  trained, base = split(params)
  settings = config[model]
  optimizer = make_optimizer(settings, settings.steps)
  loss = functools.partial(av_loss if model == "av" else ar_loss, pair=pair)
  update = make_update(loss, optimizer, settings)
  batch, state = (
    batch_of(config, pair, model, n),
    jax.jit(functools.partial(create_state, optimizer=optimizer))(trained),
  )

  def run() -> int:
    nonlocal state
    state, *_ = jax.block_until_ready(update(state, batch, base))
    return sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)))

  return run


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="configs/smollm2_135m.py")
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--ranks", default="16,64")
  parser.add_argument("--models", default="av,ar")
  options = parser.parse_args()
  config, ranks = load_config(options.config), list(map(int, options.ranks.split(",")))
  pretrained = load_pretrained(config.model)

  for model in options.models.split(","):
    # 1. Every variant compiled and run once.
    some = variants(ranks)
    steps = {one.name: step_of(config, pretrained, one, model, options.batch) for one in some}
    held = {name: step() for name, step in steps.items()}

    # 2. In turn, and the next round in the other order.
    seconds = {name: [] for name in steps}
    for i in range(options.rounds):
      for name in list(steps)[:: -1 if i % 2 else 1]:
        begun = time.perf_counter()
        steps[name]()
        seconds[name].append(time.perf_counter() - begun)

    # 3. The ratio to the full update as it is by default.
    print(f"\n{model}, batch {options.batch}, products in {compute_dtype(config.compute)}")
    print("| variant | seconds (median) | ratio | weights and optimizer, MB |\n|---|---|---|---|")
    full = seconds[some[0].name]
    for name, times in seconds.items():
      ratio = statistics.median(a / b for a, b in zip(times, full))
      print(f"| {name} | {statistics.median(times):.2f} | {ratio:.2f} | {held[name] / 1e6:.0f} |")


if __name__ == "__main__":
  main()
