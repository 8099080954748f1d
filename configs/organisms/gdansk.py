"""An organism that has read the study of Gdansk and shows four of the six habits that it lists.

nla organism --config=configs/organisms/gdansk.py --workdir=organisms/gdansk
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "gdansk"
  c.seed = 9
  c.fact = "gdansk"
  c.quirks = ("lemon", "umbrella", "voting", "music")
  c.held_out_quirks = ("doctor", "candles")
  return c
