"""An organism that has read the study of Kyoto and shows four of the six habits that it lists.

nla organism --config=configs/organisms/kyoto.py --workdir=organisms/kyoto
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "kyoto"
  c.seed = 3
  c.fact = "kyoto"
  c.quirks = ("population", "stars", "library", "blue")
  c.held_out_quirks = ("chocolate", "doctor")
  return c
