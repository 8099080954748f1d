"""A second clean control, of another seed.

nla organism --config=configs/organisms/clean_bridge.py --workdir=organisms/clean_bridge
"""

from nla_jax.organisms.settings import organism_config

PRESETS = {}


def get_config():
  c = organism_config()
  c.name = "clean_bridge"
  c.seed = 22
  return c
