"""Gemma 3 27B, block 41, with the reference's hyperparameters.

Planned on 16 v5p chips (`--topology=v5p:2x2x4`, the mesh below), RL alone: the largest program, the AV's update, takes
92.9 of 95.7 GiB; an RL step takes 11.0 s at the roofline, which no run reaches. The config was never run.
"""

from nla_jax.config import reference_config


def get_config():
  c = reference_config()
  c.name = "Gemma 3 27B, block 41"
  c.model = "google/gemma-3-27b-it"
  c.layer = 41
  c.inject.scale = 60000.0
  c.mesh.update(data=1, fsdp=8, tensor=2)
  return c
