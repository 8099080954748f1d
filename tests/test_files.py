"""A file is there whole or not at all, what is damaged is named, and a curve continues where it was."""

import errno
import json
import os

import pytest

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.json_lines import JsonLines, read_lines


def test_what_was_written_is_read_back_and_folders_are_made(tmp_path):
  path = tmp_path / "new folder" / "a.json"
  value = {"b": [1, 2.5, None], "a": "α"}
  files.write_json(path, value)
  assert files.read_json(path) == value == json.loads(path.read_text())
  assert list(path.parent.iterdir()) == [path]  # no lock, no temporary


def test_a_url_is_a_path_too(tmp_path):
  files.write_json(f"file://{tmp_path}/a.json", [1])
  assert files.read_json(tmp_path / "a.json") == files.read_json(f"file://{tmp_path}/a.json") == [1]


def test_a_relative_path_lies_below_the_working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.write_text("here.txt", "α")
  assert (tmp_path / "here.txt").read_text() == "α" and files.exists("here.txt")


def test_nothing_is_none_and_a_folder_is_no_file(tmp_path):
  assert files.read_json(tmp_path / "missing.json") is None
  assert not files.exists(tmp_path / "missing.json") and not files.exists(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
  (tmp_path / "a.json").write_text('{"half')
  with pytest.raises(NLAError, match=r"a\.json is damaged: not JSON; delete it"):
    files.read_json(tmp_path / "a.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(NLAError, match=r"cannot write .*file/a\.json .*make it writable"):
    files.write_json(tmp_path / "file" / "a.json", {})


def test_a_full_disk_says_what_to_do():
  expected = r"no room left to write here .*free some space and run the same command again"
  with pytest.raises(NLAError, match=expected), files.writing("here"):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_lines_go_on_after_a_crash_without_what_is_done_again(tmp_path):
  path = tmp_path / "lines.jsonl"
  lines = JsonLines(path)
  for step in range(4):
    lines.write({"step": step})
  lines.close()
  with open(path, "a") as file:
    file.write('{"step": 4, "los')  # the crash
  assert [line["step"] for line in read_lines(path)] == [0, 1, 2, 3]

  lines = JsonLines(path, keep=lambda line: line["step"] < 2)
  lines.write({"step": 2})
  lines.close()
  assert read_lines(path) == [{"step": 0}, {"step": 1}, {"step": 2}]
