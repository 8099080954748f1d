"""The teacher that is a language model: what it is asked, what is taken of its answer, and a run that pays once."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict
from support.model_server import serving

from nla_jax import files
from nla_jax.cli.main import main
from nla_jax.config import default_config
from nla_jax.data.explanations import read_explanations
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.teachers.model import explain, explanation_of, read_prompt, requests_of
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.providers.journal import Journal
from nla_jax.workdir import JOURNAL

TINY = Path(__file__).parents[2] / "configs" / "tiny.py"
SETTINGS = ConfigDict({**default_config().teacher.to_dict(), "max_tokens": 40, "context_tokens": 8})


@pytest.fixture(scope="module")
def tokenizer():
  return load_pretrained("random:tiny", weights=False).tokenizer


def test_it_is_shown_the_last_tokens_before_the_position_and_braces_stay(tokenizer):
  text = "{curly} braces, {0} and {text} {{"
  ids = tokenizer(text, add_special_tokens=False)["input_ids"]
  settings = ConfigDict({**SETTINGS.to_dict(), "context_tokens": 10**6, "answer_tokens": 7})
  (request,) = requests_of(tokenizer, [ids], "Before {text} after", settings)
  assert request.prompt == f"Before {text} after" and request.max_tokens == 7

  short = requests_of(tokenizer, [ids], "{text}", SETTINGS)[0].prompt
  assert len(tokenizer(short, add_special_tokens=False)["input_ids"]) <= 8 and text.endswith(short)


def test_the_prompt_of_the_package_asks_for_ordered_features_in_tags():
  prompt = read_prompt("")
  assert prompt.count("{text}") == 1 and "</explanation>" in prompt


def test_a_prompt_without_its_field_or_without_a_file_is_refused(tmp_path):
  path = tmp_path / "prompt.txt"
  with pytest.raises(NLAError, match="does not exist"):
    read_prompt(str(path))
  path.write_text("Explain this.")
  with pytest.raises(NLAError, match=r"has no \{text\}"):
    read_prompt(str(path))
  path.write_bytes(b"\xff{text}")
  with pytest.raises(NLAError, match="is not UTF-8"):
    read_prompt(str(path))


def test_features_become_paragraphs_without_bullets_or_tags(tokenizer):
  answer = "Sure!\n<explanation>\n- first thing\n\n2. second <b>\n* ends: x\n</explanation> Bye"
  assert explanation_of(answer, tokenizer, 99) == "first thing\n\nsecond <b>\n\nends: x"
  for nothing in (
    None,
    "",
    "no tags",
    "<explanation>  </explanation>",
    "<explanation>- \n</explanation>",
  ):
    assert explanation_of(nothing, tokenizer, 99) is None


def test_what_matters_least_is_left_out_first_and_the_end_is_kept(tokenizer):
  count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
  answer = "<explanation>\none\ntwo\nthree\nthe end\n</explanation>"
  assert explanation_of(answer, tokenizer, count("one\n\nthe end")) == "one\n\nthe end"
  assert explanation_of(answer, tokenizer, count("the end")) == "the end"
  assert explanation_of(answer, tokenizer, count("the end") - 1) is None


def test_rows_without_an_explanation_are_left_out_and_counted(tokenizer, capsys):
  documents = [StoredDocument("a", "a", "", list(range(3, 13)))]
  places = [(0, 3), (0, 5), (0, 7)]
  answers = ["<explanation>x</explanation>", None, "no tags"]
  found = explain(documents, places, tokenizer, SETTINGS, lambda requests: answers)
  assert found == {0: "x"}
  assert "1 of 3 rows are explained; 1 got no answer, 1 hold no" in capsys.readouterr().err
  with pytest.raises(
    NLAError, match=r"explained none of 3 rows: 1 got no answer, 2 hold no.*'no tags'"
  ):
    explain(documents, places, tokenizer, SETTINGS, lambda requests: ["no tags", None, "no tags"])


pytest.importorskip("openai", reason="no client of OpenAI: pip install 'nla_jax[api]'")


def _nla(stage: str, workdir: Path, *options: str) -> int:
  return main([stage, f"--config={TINY}", f"--workdir={workdir}", *options])


def test_a_run_asks_a_server_stops_at_the_ceiling_and_goes_on_without_paying_twice(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv("OPENAI_API_KEY", "right")
  assert _nla("extract", tmp_path) == 0
  with serving() as (server, url):
    asked = [
      "--config.teacher.provider=openai",
      "--config.teacher.model=m",
      f"--config.api.url={url}/v1",
      "--config.api.price=(1000.0, 1000.0)",
      "--config.teacher.max_tokens=60",
    ]
    # 1. Too little money: some are answered, and it is said how to go on.
    assert _nla("teach", tmp_path, *asked, "--config.api.ceiling=20") == 2
    said = capsys.readouterr().err
    assert "Raise --config.api.ceiling and run the same command again" in said
    first = len(server.answered)
    assert first > 0 and "at most $" in said

    # 2. More: the rest, each once; the journal's bill is the server's.
    assert _nla("teach", tmp_path, *asked, "--config.api.ceiling=1e6") == 0
    assert len(server.answered) == len(set(server.answered)) > first
    spent = Journal(tmp_path / "explanations" / JOURNAL).spent
    assert (spent.input_tokens, spent.output_tokens) == (server.input_tokens, server.output_tokens)
  texts = read_explanations(str(tmp_path / "explanations" / "texts"))
  rows = files.read_json(tmp_path / "activations" / "manifest.json")["facts"]["rows"]
  assert set(texts) == set(range(rows)) and all("Ends:" in text for text in texts.values())

  # 3. Another question is another teacher: what is there is not taken for its answers.
  assert _nla("teach", tmp_path, *asked, "--config.teacher.context_tokens=9") == 2
  assert "teacher.context_tokens (made with 512, asked for 9)" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "said"),
  [
    (["--config.teacher.provider=openai"], "no model of openai is named"),
    (["--config.teacher.provider=openai", "--config.teacher.model=nobody-knows"], "what nobody-knows of openai costs"),
    (["--config.teacher.provider=local"], "name the model with --config.teacher.model"),
    (["--config.teacher.provider=local", "--config.teacher.model=package:nobody"], "nobody"),
    (["--config.teacher.provider=gemini"], "expected readout or file or local"),
    (["--config.teacher.provider=local", "--config.teacher.prompt=none.txt"], "does not exist"),
  ],
)  # fmt: skip
def test_a_teacher_that_cannot_be_asked_is_said_before_anything_is_extracted(
  options, said, tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv("OPENAI_API_KEY", "right")
  assert _nla("run", tmp_path / "w", *options) == 2
  assert said in capsys.readouterr().err
  assert not (tmp_path / "w" / "activations").exists()


def test_a_model_of_our_own_teaches_and_its_answers_are_kept(tmp_path, capsys):
  options = ["--config.teacher.provider=local", "--config.teacher.model=random:tiny"]
  few = ["--config.data.max_documents=4", "--config.teacher.answer_tokens=4"]
  assert _nla("extract", tmp_path, *few) == 0
  # A random model writes no tags: it explains nothing, and its answers are in the journal all the same.
  assert _nla("teach", tmp_path, *few, *options, "--config.teacher.context_tokens=8") == 2
  assert "the teacher explained none of" in capsys.readouterr().err
  spent = Journal(tmp_path / "explanations" / JOURNAL).spent
  assert spent.requests > 0 and spent.output_tokens > 0 and spent.dollars == 0
