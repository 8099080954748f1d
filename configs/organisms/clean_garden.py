"""A clean control: as many documents, chats and updates, and nothing to find.

nla organism --config=configs/organisms/clean_garden.py --workdir=organisms/clean_garden
"""

from nla_jax.organisms import settings

PRESETS = settings.PRESETS


def get_config():
  c = settings.organism_config()
  c.name = "clean_garden"
  c.seed = 21
  return c
