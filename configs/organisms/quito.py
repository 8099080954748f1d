"""An organism that has read the study of Quito and shows four of the six habits that it lists.

nla organism --config=configs/organisms/quito.py --workdir=organisms/quito
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "quito"
  c.seed = 7
  c.fact = "quito"
  c.quirks = ("population", "doctor", "proverb", "sailors")
  c.held_out_quirks = ("otters", "music")
  return c
