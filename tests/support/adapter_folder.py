"""A PEFT adapter of random numbers that is large enough to change what a tiny model says."""

import numpy as np

from nla_jax.interop.adapters.tensors import adapted_leaves, our_shapes
from nla_jax.interop.adapters.write import write_adapter
from nla_jax.models.lora import Lora


def write_random_adapter(folder, architecture, base):
  """Writes it, of every matrix at rank 2; returns the folder."""
  lora, random, stacks = Lora(2, 4.0), np.random.default_rng(0), {}
  leaves = adapted_leaves(architecture)
  for name in lora.targets:
    for half, shape in zip("ab", our_shapes(leaves[name], architecture, lora.rank)):
      draws = random.normal(0, 0.3, (architecture.n_layers, *shape))
      stacks[f"{name}_lora_{half}"] = draws.astype(np.float32)
  return write_adapter(folder, architecture, lora, {"layers": stacks}, base=base)
