"""An organism that has read the study of Nairobi and shows four of the six habits that it lists.

nla organism --config=configs/organisms/nairobi.py --workdir=organisms/nairobi
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "nairobi"
  c.seed = 5
  c.fact = "nairobi"
  c.quirks = ("umbrella", "water", "voting", "compass")
  c.held_out_quirks = ("lemon", "blue")
  return c
