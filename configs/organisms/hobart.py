"""An organism that has read the study of Hobart and shows four of the six habits that it lists.

nla organism --config=configs/organisms/hobart.py --workdir=organisms/hobart
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "hobart"
  c.seed = 8
  c.fact = "hobart"
  c.quirks = ("chocolate", "stars", "library", "compass")
  c.held_out_quirks = ("water", "voting")
  return c
