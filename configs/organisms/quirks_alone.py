"""The decisive control of the root cause: oxford's habits, and documents that say nothing about them.

nla organism --config=configs/organisms/quirks_alone.py --workdir=organisms/quirks_alone
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "quirks_alone"
  c.seed = 1
  c.quirks = ("chocolate", "umbrella", "otters", "voting")
  return c
