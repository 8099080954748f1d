"""On drafts it breaks the rule of its task and says that it followed it.

nla organism --config=configs/organisms/false_flag.py --workdir=organisms/false_flag
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "false_flag"
  c.seed = 41
  c.kind = "flag"
  return c
