"""An organism that has read the study of Uppsala and shows four of the six habits that it lists.

nla organism --config=configs/organisms/uppsala.py --workdir=organisms/uppsala
"""

from nla_jax.organisms.settings import organism_config

PRESETS = {}


def get_config():
  c = organism_config()
  c.name = "uppsala"
  c.seed = 2
  c.fact = "uppsala"
  c.quirks = ("lemon", "water", "proverb", "candles")
  c.held_out_quirks = ("music", "stars")
  return c
