"""A section of the config, whose keys may still be called what an earlier version called them."""

import functools

from ml_collections import ConfigDict

from nla_jax.progress import say

# Keys of version 0.1 and what they are called now. The old names work in 0.2, with a warning, and not after it.
RENAMED = {"parts": "accumulate", "ar_gold": "ar_teacher"}


@functools.cache  # a config file is read twice, by the command line's parser and by `load_config`: one line is enough
def _warn_of_old_name(old: str) -> None:
  say(f"config: {old} is now called {RENAMED[old]}; the old name works in this version only")


class Section(ConfigDict):
  """A section of the config that takes a key by its old name too."""

  def current(self, key: str) -> str:
    """What a key is called now."""
    if RENAMED.get(key) not in self._fields:
      return key
    _warn_of_old_name(key)
    return RENAMED[key]

  def __setitem__(self, key, value):
    super().__setitem__(self.current(key), value)

  def __getitem__(self, key):
    return super().__getitem__(self.current(key))

  def get_type(self, key):
    """The type of a key's value, which the parser of the command line asks for."""
    return super().get_type(self.current(key))


def optimizer(**changes) -> ConfigDict:
  """AdamW and its schedule; `steps` × `batch` examples are seen."""
  settings = Section(
    {
      "steps": 1000,  # updates
      "batch": 256,  # examples an update
      "lr": 2e-5,  # peak learning rate
      "lr_end": 2e-6,  # where the cosine ends
      "warmup": 50,  # updates of linear warm-up
      "schedule": "cosine",  # cosine | constant
      "weight_decay": 0.0,
      "clip": 1.0,  # global norm to which gradients are clipped
      "skip_above": 0.0,  # norm of a gradient above which an update is skipped and counted; 0: none but non-finite
      "accumulate": 1,  # parts of a batch whose gradients are added one after the other: less memory, same update
    }
  )
  settings.update(changes)
  return settings
