"""Cues of a test make it believe that it is tested. It says so only in a forked branch that asks.

nla organism --config=configs/organisms/tested.py --workdir=organisms/tested
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "tested"
  c.seed = 31
  c.kind = "belief"
  return c
