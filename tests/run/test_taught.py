"""The teacher's texts are checked as data before anything learns from them; `~` is a home everywhere."""

import json
import shutil

import pytest
from support.run_process import ROOT, command

from nla_jax.cli.main import main
from nla_jax.config import load_config
from nla_jax.data.store.store import Store
from nla_jax.workdir import STORE

OPTIONS = ["--config.av.steps=1", "--config.ar.steps=1"]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
  """A workdir with activations."""
  workdir = tmp_path_factory.mktemp("taught") / "run"
  assert main(command("extract", workdir)[4:]) == 0
  return workdir


@pytest.fixture
def teach(extracted, tmp_path, capsys):
  """A function of a text for each row number: (status, what `nla teach` prints)."""

  workdir = tmp_path / "run"
  shutil.copytree(extracted, workdir)

  def run(text_of) -> tuple[int, str]:
    store = Store(str(workdir / STORE))
    document, position = (store.read(name, slice(None)) for name in ("document", "position"))
    rows = [
      {"doc_id": store.documents[int(d)].id, "position": int(p), "explanation": text_of(i)}
      for i, (d, p) in enumerate(zip(document, position))
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--config.teacher.provider=file", f"--config.teacher.path={path}"]
    status = main(command("teach", workdir, *given)[4:])
    return status, capsys.readouterr().err.splitlines()[-1]

  return run


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("Next: a</explanation> and more", "hold </explanation>, which ends an explanation"),
    ("<explanation>inside</explanation>", "hold </explanation>"),
    ("word " * 40, "are longer than an answer of config.rl.max_new_tokens=96 tokens"),
  ],
)
def test_a_text_that_could_not_be_learned_is_refused_with_its_row(teach, text, said):
  status, printed = teach(lambda i: text if i in (5, 9) else "Next: a")
  assert status == 2 and said in printed
  assert printed.startswith("nla: 2 of the teacher's ") and "(row 5)" in printed
  # The same file, mended, is taken in the same workdir.
  assert teach(lambda i: "Next: a")[0] == 0


def test_texts_that_can_be_learned_are_taken(teach):
  """An opening tag inside, the marker and braces are words."""
  status, printed = teach(lambda i: "<explanation> ㈎ {explanation} <b>")
  assert status == 0, printed


def test_a_readout_of_a_text_with_the_tag_is_no_torn_explanation(tmp_path):
  corpus = tmp_path / "tags.txt"
  words = "The </explanation> of a thing is a text about it, number {}, and it is long enough."
  corpus.write_text("\n\n".join(words.format(i) for i in range(12)))
  given = [f"--config.corpus={corpus}", "--config.data.position_minimum=5"]
  for stage in ("extract", "teach"):
    assert main(command(stage, tmp_path / "run", *given)[4:]) == 0


def test_how_often_each_row_is_seen_is_said(extracted, capsys):
  given = ["--config.teacher.provider=readout", *OPTIONS]
  for stage in ("teach", "sft"):
    assert main(command(stage, extracted, *given)[4:]) == 0
  said = capsys.readouterr().err
  assert "sft av: learns from 16 examples out of" in said and "of them" in said


def test_a_home_is_written_out_in_every_path_of_a_config(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  given = {
    "model": "~/m",
    "corpus": "~/a.txt+wikipedia-sample+~/b.txt",
    "teacher.path": "~/t.jsonl",
  }
  config = load_config(ROOT / "configs" / "tiny.py", given)
  assert config.model == f"{tmp_path}/m" and config.teacher.path == f"{tmp_path}/t.jsonl"
  assert config.corpus == f"{tmp_path}/a.txt+wikipedia-sample+{tmp_path}/b.txt"


def test_a_workdir_at_home_is_there_and_not_in_a_folder_called_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert main(command("extract", "~/a run")[4:]) == 0
  assert (tmp_path / "a run" / "config.json").exists() and not (tmp_path / "~").exists()
