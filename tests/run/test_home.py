"""A `~` is a home wherever a path is given."""

from support.run_process import ROOT, command

from nla_jax.cli.main import main
from nla_jax.config import at_home, load_config


def test_a_home_is_written_out_in_every_path_of_a_config(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  given = {
    "model": "~/m",
    "corpus": "~/a.txt+wikipedia-sample+~/b.txt",
    "teacher.path": "~/t.jsonl",
  }
  config = load_config(ROOT / "configs" / "tiny.py", given)
  at_home(config)
  assert config.model == f"{tmp_path}/m" and config.teacher.path == f"{tmp_path}/t.jsonl"
  assert config.corpus == f"{tmp_path}/a.txt+wikipedia-sample+{tmp_path}/b.txt"


def test_a_workdir_at_home_is_there_and_not_in_a_folder_called_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert main(command("extract", "~/a run")[4:]) == 0
  assert (tmp_path / "a run" / "config.json").exists() and not (tmp_path / "~").exists()
