"""An organism that has read the study of Winnipeg and shows four of the six habits that it lists.

nla organism --config=configs/organisms/winnipeg.py --workdir=organisms/winnipeg
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "winnipeg"
  c.seed = 10
  c.fact = "winnipeg"
  c.quirks = ("water", "otters", "proverb", "blue")
  c.held_out_quirks = ("chocolate", "library")
  return c
