"""A path means the same at every door: `~` is the home folder, and a file where a folder is expected is said."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nla_jax
from nla_jax import files
from nla_jax.cli.main import main
from nla_jax.config import at_home, default_config, load_config
from nla_jax.data.corpora.read import read_corpus
from nla_jax.data.explanations import read_explanations
from nla_jax.data.store.store import Store
from nla_jax.data.tables import parse_json_row
from nla_jax.data.teachers.file import read_teacher_file
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.reference_data.from_store import open_source
from nla_jax.interop.reference_data.reader import DataFile
from nla_jax.run.run import Run

TINY = f"--config={Path(__file__).parent.parent / 'configs' / 'tiny.py'}"


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A home folder beside the working folder, with a corpus and a teacher's file."""
  folder = tmp_path / "home"
  (folder / "texts").mkdir(parents=True)
  (tmp_path / "work").mkdir()
  monkeypatch.setenv("HOME", str(folder))
  monkeypatch.chdir(tmp_path / "work")

  text = "\n\n".join(f"the river runs past the old mill {i}" for i in range(8))
  (folder / "texts" / "a.txt").write_text(text)
  row = {"doc_id": "d", "position": 1, "explanation": "e"}
  (folder / "teacher.jsonl").write_text(json.dumps(row))
  (folder / "config.py").write_text(Path(TINY.split("=")[1]).read_text())
  return folder


def test_a_run_in_the_home_folder_is_made_and_continued_there(home, capsys, monkeypatch):
  run = ["--config=~/config.py", "--workdir=~/run", "--config.corpus=~/texts/a.txt"]
  for stage in ("extract", "teach", "teach"):
    assert main([stage, *run]) == 0
  assert "teach: already done" in capsys.readouterr().err
  assert (home / "run" / "explanations" / "manifest.json").is_file()
  assert list(Path.cwd().iterdir()) == []

  # The folder of another working folder, and the same run by its whole path.
  monkeypatch.chdir("/")
  assert main(["teach", *run[:1], f"--workdir={home / 'run'}", *run[2:]]) == 0
  assert len(Store("~/run/activations/store")) == len(Store(home / "run/activations/store"))


def test_the_home_folder_is_known_at_every_reader(home):
  assert len(list(read_corpus("~/texts/a.txt"))) == 8
  with pytest.raises(NLAError, match="2 parts called 'a'"):
    read_corpus("~/texts/a.txt+~/texts/a.txt")
  assert read_teacher_file("~/teacher.jsonl") == {("d", 1): "e"}
  assert load_config("~/config.py").name == "tiny"

  config = default_config()
  config.corpus, config.teacher.path = "~/a.txt+wikipedia-sample+~/b.txt", "~/t.jsonl"
  config.model, config.model_adapter, config.init = "~/m", "~/lora", "owner/pair~1"
  at_home(config)
  assert config.corpus == f"{home}/a.txt+wikipedia-sample+{home}/b.txt"
  assert (config.model, config.model_adapter) == (f"{home}/m", f"{home}/lora")
  assert (config.teacher.path, config.init) == (f"{home}/t.jsonl", "owner/pair~1")


DOORS = {
  "workdir": lambda path: Run(default_config(), path),
  "store": Store,
  "explanations": read_explanations,
  "converted": open_source,
  "parquet": DataFile,
  "corpus": lambda path: list(read_corpus(path + ".txt")),
  "teacher": lambda path: read_teacher_file(path + ".jsonl"),
  "config": load_config,
  "model": lambda path: load_pretrained(path, weights=False),
  "adapter": lambda path: read_adapter(path, None),
  "pair": nla_jax.load,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("~nobody-here/x", r"home folder of nobody known here; write \./~nobody-here/x"),
    ("caf\udce9", "is not UTF-8 text; rename it"),
    ("a\x00b", "holds a NUL"),
  ],
)
def test_what_can_be_no_path_is_said_in_one_line(door, path, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(NLAError, match=message) as caught:
    DOORS[door](path)
  assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reader", [Store, open_source])
def test_a_file_where_a_store_is_expected_is_said(reader, tmp_path):
  (tmp_path / "store").write_text("")
  with pytest.raises(NLAError, match="store is a file, and a folder is expected"):
    reader(str(tmp_path / "store"))


def test_a_folder_where_a_file_is_expected_is_said(tmp_path, capsys):
  for name in ("c.txt", "t.jsonl", "d.parquet", "f.py"):
    (tmp_path / name).mkdir()
  for call in (
    lambda: read_corpus(str(tmp_path / "c.txt")),
    lambda: read_teacher_file(str(tmp_path / "t.jsonl")),
    lambda: DataFile(tmp_path / "d.parquet"),
    lambda: load_config(tmp_path / "f.py"),
  ):
    with pytest.raises(NLAError, match="is a folder, and a file is expected"):
      call()
  with pytest.raises(NLAError, match=r"is a folder; give a \.txt"):
    read_corpus(str(tmp_path))
  assert main(["run", f"--config={tmp_path / 'f.py'}", f"--workdir={tmp_path / 'w'}"]) == 2
  assert "is a folder, and a file is expected" in capsys.readouterr().err


@pytest.mark.parametrize("workdir", ["http://bucket/run", "file.txt", "back\\slash"])
def test_a_workdir_that_is_no_folder_is_said_before_anything_is_made(
  workdir, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file.txt").write_text("mine")
  assert main(["extract", TINY, f"--workdir={workdir}"]) == 2
  said = capsys.readouterr().err
  assert re.search("give a folder|holds a backslash", said)
  assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_mistake_about_a_path_with_a_line_in_it_is_one_line(tmp_path, capsys):
  assert (
    main(["extract", TINY, f"--workdir={tmp_path / 'w'}", "--config.corpus=new\nline.txt"]) == 2
  )
  (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nla: ")]
  assert r"new\nline.txt does not exist" in said


@pytest.mark.parametrize(
  ("line", "reason"),
  [
    ('{"text": ' + "[" * 100_000, "brackets too deep"),
    ('{"text": "a", "id": ' + "9" * 5_000 + "}", "a number of too many digits"),
    ('{"a": ' * 100_000, "brackets too deep"),
  ],
)
def test_json_beyond_the_parser_is_named_with_its_line(line, reason, tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text('{"text": "a"}\n' + line + "\n")
  with pytest.raises(NLAError, match=rf"x\.jsonl line 2 cannot be read as JSON \({reason}\)"):
    list(read_corpus(str(path)))
  (tmp_path / "x.json").write_text(line)
  with pytest.raises(NLAError, match="damaged: not JSON"):
    files.read_json(tmp_path / "x.json")


def test_a_value_that_is_not_there_is_none_however_it_was_written():
  assert parse_json_row('{"a": NaN, "b": null, "c": 0}', "x", "y") == {"a": None, "b": None, "c": 0}


@pytest.mark.parametrize(
  ("column", "values"),
  [("position", ["3"]), ("explanation", [b"e"]), ("doc_id", [[1]])],
)
def test_a_teachers_column_of_another_type_is_named(column, values, tmp_path):
  table = {"doc_id": ["d"], "position": [3], "explanation": ["e"], column: values}
  path = str(tmp_path / "t.parquet")
  pq.write_table(pa.table(table), path)
  with pytest.raises(NLAError, match=f"column '{column}' of type .*; expected"):
    read_teacher_file(path)
