"""Every way to set a key reaches it, what is wrong is named, and a key's old name works for one release."""

import copy
import json
from pathlib import Path

import pytest

from nla_jax import config_section
from nla_jax.cli.command_line import parse
from nla_jax.cli.stages import define
from nla_jax.config import default_config, load_config
from nla_jax.errors import NLAError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
FILE = """
from nla_jax.config import default_config

PRESETS = {"short": {"rl.steps": 3, "rl.av.lr": 1, "rl.ar.%s": 2}}

def get_config():
  c = default_config()
  c.rl.steps = 7
  %s
  return c
"""


@pytest.fixture
def written(tmp_path):
  """A function (line, key in the preset): the path of a config file with that line."""

  def write(line: str = "pass", key: str = "accumulate") -> str:
    path = tmp_path / "one.py"
    path.write_text(FILE % (key, line))
    return str(path)

  return write


@pytest.fixture(autouse=True)
def _nothing_was_said_yet():
  config_section._warn_of_old_name.cache_clear()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_in_configs_loads_without_a_warning(path, capsys):
  assert load_config(path).keys() == default_config().keys()
  assert capsys.readouterr().err == ""


def test_a_key_wins_over_the_preset_and_the_preset_over_the_file(written):
  assert load_config(written()).rl.steps == 7
  short = load_config(written(), {"preset": "short"})
  assert short.rl.steps == 3 and short.rl.av.lr == 1.0 and short.rl.ar.accumulate == 2
  assert load_config(written(), {"preset": "short", "rl.steps": 5}).rl.steps == 5


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"preset": "long"}, "preset 'long' is not one of main, short"),
    ({"rl.stepz": 1}, "no key 'rl.stepz'"),
    ({"reinforce.steps": 1}, "no key 'reinforce.steps'"),
    ({"rl.steps": "many"}, r"config\.rl\.steps='many': expected int"),
  ],
)
def test_what_cannot_be_set_is_named(written, overrides, message):
  with pytest.raises(NLAError, match=message):
    load_config(written(), overrides)


def test_a_missing_file_is_named():
  with pytest.raises(NLAError, match=r"the config file /nowhere\.py does not exist"):
    load_config("/nowhere.py")


def _command_line(path: str, *options: str):
  return parse(define, ["run", f"--config={path}", *options]).config


OLD_WAYS = {
  "in a preset": lambda write: load_config(write(key="parts"), {"preset": "short"}),
  "as an override": lambda write: load_config(write(), {"rl.ar.parts": 2}),
  "assigned in a file": lambda write: load_config(write("c.rl.ar.parts = 2")),
  "updated in a file": lambda write: load_config(write("c.rl.ar.update(parts=2)")),
  "on the command line": lambda write: _command_line(write(), "--config.rl.ar.parts=2"),
  "in a file that the command line reads": lambda write: _command_line(write("c.rl.ar.parts = 2")),
}


@pytest.mark.parametrize("way", OLD_WAYS)
def test_the_old_name_of_a_key_sets_the_new_one_and_says_so_once(way, written, capsys):
  config = OLD_WAYS[way](written)
  assert config.rl.ar.accumulate == 2 and config.rl.av.accumulate == 1
  said = capsys.readouterr().err.splitlines()
  assert said == ["config: parts is now called accumulate; the old name works in this version only"]
  assert "parts" not in json.loads(config.to_json())["rl"]["ar"]


def test_the_teachers_share_had_another_name_too(written, capsys):
  config = _command_line(written(), "--config.rl.ar_gold=0.25")
  assert config.rl.ar_teacher == 0.25
  assert "ar_gold is now called ar_teacher" in capsys.readouterr().err


def test_an_old_name_is_unknown_where_it_never_was():
  with pytest.raises(AttributeError):
    default_config().data.parts = 2


def test_a_copy_of_a_config_is_equal_and_its_own():
  config = default_config()
  other = copy.deepcopy(config)
  assert other == config
  other.rl.av.accumulate = 4
  assert config.rl.av.accumulate == 1
