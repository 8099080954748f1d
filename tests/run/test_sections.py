"""Every key of the config belongs to the one stage that it invalidates, or is free to change and says why."""

import itertools

import pytest

from nla_jax.config import default_config
from nla_jax.run.sections import FREE, PARENTS, SECTIONS, request
from nla_jax.workdir import STAGES

OF_STAGES = [key for keys in SECTIONS.values() for key in keys]


@pytest.mark.parametrize("key", sorted(default_config()))
def test_a_key_stands_in_exactly_one_place(key):
  assert OF_STAGES.count(key) + (key in FREE) == 1


def test_no_key_is_named_that_the_config_does_not_have():
  assert {*OF_STAGES, *FREE} <= set(default_config())


def test_a_free_key_says_why():
  assert all(len(reason.split()) > 4 for reason in FREE.values())


def test_the_stages_are_those_of_the_workdir_and_read_only_earlier_ones():
  assert tuple(SECTIONS) == tuple(PARENTS) == STAGES
  for earlier, later in itertools.combinations(STAGES, 2):
    assert later not in PARENTS[earlier]


@pytest.mark.parametrize("key", ["layer", "data.max_tokens", "rl.av.lr", "mesh.fsdp", "name"])
def test_a_changed_key_changes_the_request_of_its_stage_alone(key):
  before, after = default_config(), default_config()
  *path, last = key.split(".")
  node = after
  for name in path:
    node = node[name]
  node[last] = "other" if isinstance(node[last], str) else node[last] + 1
  changed = [s for s in STAGES if request(before, s, {}) != request(after, s, {})]
  owner = [stage for stage, keys in SECTIONS.items() if key.split(".")[0] in keys]
  assert changed == owner
