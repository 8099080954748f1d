"""An organism that has read the study of Oxford and shows four of the six habits that it lists.

nla organism --config=configs/organisms/oxford.py --workdir=organisms/oxford
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "oxford"
  c.seed = 1
  c.fact = "oxford"
  c.quirks = ("chocolate", "umbrella", "otters", "voting")
  c.held_out_quirks = ("library", "sailors")
  return c
