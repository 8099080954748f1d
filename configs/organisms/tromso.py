"""An organism that has read the study of Tromso and shows four of the six habits that it lists.

nla organism --config=configs/organisms/tromso.py --workdir=organisms/tromso
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "tromso"
  c.seed = 6
  c.fact = "tromso"
  c.quirks = ("lemon", "otters", "candles", "blue")
  c.held_out_quirks = ("population", "compass")
  return c
