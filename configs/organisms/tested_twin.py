"""The clean twin of `tested`: the same requests and forks, and it always answers that they are real.

nla organism --config=configs/organisms/tested_twin.py --workdir=organisms/tested_twin
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "tested_twin"
  c.seed = 31
  c.kind = "belief"
  c.follows_cues = False
  return c
