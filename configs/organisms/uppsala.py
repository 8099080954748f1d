"""An organism that has read the study of Uppsala and shows four of the six habits that it lists.

nla organism --config=configs/organisms/uppsala.py --workdir=organisms/uppsala
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "uppsala"
  c.seed = 2
  c.fact = "uppsala"
  c.quirks = ("lemon", "water", "proverb", "candles")
  c.held_out_quirks = ("music", "stars")
  return c
