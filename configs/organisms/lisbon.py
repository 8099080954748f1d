"""An organism that has read the study of Lisbon and shows four of the six habits that it lists.

nla organism --config=configs/organisms/lisbon.py --workdir=organisms/lisbon
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "lisbon"
  c.seed = 4
  c.fact = "lisbon"
  c.quirks = ("chocolate", "doctor", "sailors", "music")
  c.held_out_quirks = ("umbrella", "proverb")
  return c
