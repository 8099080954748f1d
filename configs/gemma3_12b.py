"""Gemma 3 12B, block 32, with the reference's hyperparameters.

Planned on eight v5p chips (`--topology=v5p:2x2x2`, the mesh below), RL alone: the largest program, the AV's update,
takes 81.5 of 95.7 GiB; an RL step takes 9.8 s at the roofline, which no run reaches. The config was never run.
"""

from nla_jax.config import reference_config


def get_config():
  c = reference_config()
  c.name = "Gemma 3 12B, block 32"
  c.model = "google/gemma-3-12b-it"
  c.layer = 32
  c.inject.scale = 80000.0
  c.mesh.update(data=1, fsdp=8, tensor=1)
  return c
