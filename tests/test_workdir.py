"""A workdir says which layout it has; one of another version is refused in a line that says what still works."""

import importlib.metadata
import json
from pathlib import Path

import pytest

import nla_jax
from nla_jax.cli.main import main
from nla_jax.config import default_config, load_config
from nla_jax.errors import NLAError
from nla_jax.workdir import CONFIG, FORMAT, FORMAT_KEY, VERSION_KEY, write_config

ROOT = Path(__file__).parent.parent
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"


@pytest.fixture
def old(tmp_path):
  """A finished workdir of version 0.1: its config.json has no format, and keys have their old names."""
  config = json.loads(load_config(ROOT / "configs" / "tiny.py").to_json())
  for section in (config["av"], config["ar"], config["rl"]["av"], config["rl"]["ar"]):
    section["parts"] = section.pop("accumulate")
  config["rl"]["ar_gold"] = config["rl"].pop("ar_teacher")
  workdir = tmp_path / "old"
  (workdir / "rl").mkdir(parents=True)
  (workdir / CONFIG).write_text(json.dumps(config))
  (workdir / "rl" / "manifest.json").write_text(
    json.dumps({"request": {}, "facts": {"samples": 64}, "versions": {}, "seconds": 9.0})
  )
  return workdir


def _is_refused(line: str, workdir: Path) -> bool:
  return (
    f"{workdir} was made by nla_jax 0.1.0" in line
    and f'nla_jax.load("{workdir / "hf"}")' in line
    and "\n" not in line
  )


def test_an_old_workdir_is_not_loaded(old):
  with pytest.raises(NLAError) as caught:
    nla_jax.load(old)
  assert _is_refused(str(caught.value), old)


def test_an_unfinished_workdir_says_which_stage_is_missing(tmp_path):
  write_config(tmp_path, json.loads(load_config(ROOT / "configs" / "tiny.py").to_json()))
  with pytest.raises(NLAError, match="`nla sft` with the same --config and --workdir makes it"):
    nla_jax.load(tmp_path)


@pytest.mark.parametrize("stage", ["run", "eval"])
def test_an_old_workdir_is_not_continued_and_nothing_in_it_changes(stage, old, capsys):
  before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
  assert main([stage, TINY, f"--workdir={old}"]) == 2
  assert _is_refused(capsys.readouterr().err.strip(), old)
  assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_an_old_workdir_is_described_with_the_same_line(old, capsys):
  assert main(["inspect", str(old)]) == 0
  printed = capsys.readouterr().out
  assert "stage rl" in printed and "samples 64" in printed
  assert _is_refused(printed.splitlines()[-1], old)


def test_the_config_comes_back_as_it_was_kept(tmp_path, capsys):
  config = default_config()
  config.rl.av.lr = 0.125
  write_config(tmp_path, json.loads(config.to_json()))
  kept = json.loads((tmp_path / CONFIG).read_text())
  assert kept[FORMAT_KEY] == FORMAT and kept[VERSION_KEY] == nla_jax.__version__
  assert load_config(tmp_path / CONFIG) == config
  assert main(["inspect", str(tmp_path)]) == 0
  assert "of another version" not in capsys.readouterr().out


def test_a_workdir_of_a_later_layout_names_its_version(tmp_path):
  config = json.loads(default_config().to_json())
  later = {**config, FORMAT_KEY: FORMAT + 1, VERSION_KEY: "9.9"}
  (tmp_path / CONFIG).write_text(json.dumps(later))
  with pytest.raises(NLAError, match=r"was made by nla_jax 9\.9"):
    load_config(tmp_path / CONFIG)


def test_the_folder_of_a_language_model_is_no_workdir(tmp_path, capsys):
  model = json.dumps({"model_type": "llama"})
  (tmp_path / CONFIG).write_text(model)
  assert main(["extract", TINY, f"--workdir={tmp_path}"]) == 2
  assert "is not the config of a run: give another --workdir" in capsys.readouterr().err
  assert (tmp_path / CONFIG).read_text() == model


def test_setup_and_the_package_agree_on_the_version():
  """The installed version is what setup.py said; launchers install again when the version's file changes."""
  assert importlib.metadata.version("nla_jax") == nla_jax.__version__
