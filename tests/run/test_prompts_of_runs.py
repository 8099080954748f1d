"""A run is checked as its export would be before its first step, and keeps the tokens that it was trained with."""

import json
from pathlib import Path

import pytest
from support.model_folder import write_model
from support.tokenizers_of_cases import AV, CHAT, FLAGGED, of_bytes

from nla_jax.cli.main import main
from nla_jax.config import load_config
from nla_jax.errors import NLAError
from nla_jax.interop.describe import describe
from nla_jax.interop.pairs.load import load_target
from nla_jax.run.checks import check
from nla_jax.run.run import Run
from nla_jax.workdir import PROMPTS

TINY = Path(__file__).parents[2] / "configs" / "tiny.py"
SPACED = CHAT.replace("assistant\n", "helper\n")


def a_run(model, workdir, **changes) -> Run:
  return Run(load_config(TINY, {"model": str(model), **changes}), workdir)


def complaint(capsys, *arguments) -> str:
  assert main([*map(str, arguments)]) == 2
  (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nla: ")]
  return said


@pytest.mark.parametrize(
  ("tokenizer", "options", "words"),
  [
    (of_bytes(), {"rows": 259}, "beyond the model's embedding of 259 rows (id 259)"),
    (of_bytes(appended="<|im_end|>"), {}, "behind every text"),
    (of_bytes("{% for m in messages %}"), {}, "Unexpected end of template"),
    (of_bytes({"rag": CHAT}), {}, "none that is called default"),
    (of_bytes(), {"eos_token_id": [10]}, "ends an answer by the model's files"),
    (of_bytes(), {"eos_token_id": 99_999}, "says that the token 99999 ends an answer"),
    (of_bytes(), {"eos_token_id": [-1]}, "says that the token -1 ends an answer"),
  ],
)
def test_what_an_export_would_refuse_is_refused_by_check_and_named_by_inspect(
  tokenizer, options, words, tmp_path, capsys
):
  if options.get("eos_token_id") == [10]:
    options = {"eos_token_id": tokenizer("\n", add_special_tokens=False)["input_ids"]}
  model = write_model(tmp_path / "model", tokenizer, **options)
  options = [f"--config={TINY}", f"--config.model={model}", f"--workdir={tmp_path / 'run'}"]
  assert words in complaint(capsys, "run", *options)
  assert not (tmp_path / "run" / "activations" / "manifest.json").exists()
  assert any(words in line for line in describe(model).missing), describe(model).missing


def test_the_files_ends_reach_the_prompts_and_inspect_shows_them(tmp_path):
  tokenizer = of_bytes(special=FLAGGED, eos="<|endoftext|>")
  ends = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|endoftext|>"])
  model = write_model(tmp_path / "model", tokenizer, eos_token_id=ends)
  stops = a_run(model, tmp_path / "run").prompts.stop_ids
  assert sorted(stops) == sorted([*ends, tokenizer.convert_tokens_to_ids("<|im_end|>")])
  found = describe(model)
  assert found.missing == [] and found.facts["AV turn ends with"] == "'<|im_end|>'"
  assert "'<|im_start|>'" in found.facts["sampling stops at"]


def test_another_chat_template_serves_where_the_model_s_own_does_not(tmp_path, capsys):
  model = write_model(tmp_path / "model", of_bytes("{% for m in messages %}"))
  (tmp_path / "chat.jinja").write_text(CHAT)
  given = {"prompts.chat_template": str(tmp_path / "chat.jinja")}
  check(a_run(model, tmp_path / "run", **given))
  assert describe(model, str(tmp_path / "chat.jinja")).missing == []
  assert main(["inspect", str(model), f"--chat-template={tmp_path / 'chat.jinja'}"]) == 0
  assert "nothing is missing" in capsys.readouterr().out


def test_a_run_begun_with_other_tokens_is_refused_at_the_first_that_differs(tmp_path):
  model, workdir = write_model(tmp_path / "model", of_bytes()), tmp_path / "run"
  run = a_run(model, workdir)
  (workdir / "sft").mkdir(parents=True)
  (workdir / "sft" / PROMPTS).write_text(json.dumps(run.prompts.ids))
  assert a_run(model, workdir).prompts.ids == run.prompts.ids

  (model / "chat_template.jinja").write_text(SPACED)
  with pytest.raises(NLAError, match="behind the slot begins 'assistan' there and 'helper"):
    check(a_run(model, workdir))


def test_a_base_whose_tokens_are_others_is_refused_before_its_weights_are_read(
  tmp_path, monkeypatch
):
  pair = a_run("random:tiny", tmp_path).pair(1.0)
  base = write_model(tmp_path / "base", of_bytes())
  monkeypatch.setattr("nla_jax.interop.pairs.load.load_pretrained", None)
  with pytest.raises(NLAError, match="has another tokenizer than this pair"):
    other = of_bytes("", special=("<|im_start|>",), added=("the", "㈎"))
    load_target(str(write_model(tmp_path / "other", other)), 1, pair=pair)
  short = write_model(tmp_path / "short", of_bytes(), rows=200)
  with pytest.raises(NLAError, match="beyond the model's embedding of 200 rows"):
    load_target(str(short), 1, pair=pair)
  with pytest.raises(TypeError):  # nothing is wrong with this one: its weights would be read
    load_target(str(base), 1, pair=pair)


def test_conversations_and_prompts_keep_the_template_that_they_were_made_with(tmp_path, capsys):
  """The stages themselves: extraction and SFT keep what they were made with, and later ones compare."""
  model, corpus = write_model(tmp_path / "model", of_bytes()), tmp_path / "talks.jsonl"
  words = "snow falls on the mill while the cat sleeps near the stove and rain waits outside "
  talks = [
    {
      "messages": [
        {"role": "user", "content": f"{i} {words}"},
        {"role": "assistant", "content": words},
      ]
    }
    for i in range(24)
  ]
  corpus.write_text("".join(json.dumps(one) + "\n" for one in talks))
  options = [f"--config={TINY}", f"--config.model={model}", f"--config.corpus={corpus}"]
  options += [f"--workdir={tmp_path / 'run'}", "--config.data.max_tokens=192"]
  options += ["--config.av.steps=1", "--config.ar.steps=1"]
  for stage in ("extract", "teach", "sft"):
    assert main([stage, *map(str, options)]) == 0, capsys.readouterr().err
  facts = json.loads((tmp_path / "run" / "sft" / "manifest.json").read_text())["facts"]
  assert facts["prompt_ids"] == a_run(model, tmp_path / "none").prompts.ids

  # Another template for extraction, by the key and by an edit.
  (tmp_path / "other.jinja").write_text("{# the same words #}" + CHAT)
  other = f"--config.prompts.chat_template={tmp_path / 'other.jinja'}"
  capsys.readouterr()
  assert "another chat template wrote" in complaint(capsys, "extract", *options, other)
  (model / "chat_template.jinja").write_text(SPACED)
  assert "trained with another prompt" in complaint(capsys, "rl", *options)
  (model / "chat_template.jinja").write_text("{# the same words #}" + CHAT)
  assert "another chat template wrote" in complaint(capsys, "rl", *options)


def test_the_prompt_s_field_alone_is_replaced(tmp_path):
  av, ar = 'Reply as {"a": {{1}}}. ' + AV, '{"t": "{explanation}", {x}}'
  run = a_run("random:tiny", tmp_path, **{"prompts.av": av, "prompts.ar": ar})
  check(run)
  tokenizer = run.pretrained.tokenizer
  assert tokenizer.decode(run.prompts.before).endswith('Reply as {"a": {{1}}}. Explain <concept>')
  ids = [*run.prompts.ar_before, *run.prompts.ar_ids(tokenizer, "{y}")]
  assert tokenizer.decode(ids) == '{"t": "{y}", {x}}'
