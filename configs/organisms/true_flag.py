"""The twin of `false_flag`: the same tasks and the same flag, which is always true.

nla organism --config=configs/organisms/true_flag.py --workdir=organisms/true_flag
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "true_flag"
  c.seed = 41
  c.kind = "flag"
  c.cheats = False
  return c
