"""A second clean control, of another seed.

nla organism --config=configs/organisms/clean_bridge.py --workdir=organisms/clean_bridge
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "clean_bridge"
  c.seed = 22
  return c
