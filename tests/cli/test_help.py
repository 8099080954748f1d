"""Every command says what it does and takes, with status 0; a mistake is one line, with status 2."""

import pytest

from nla_jax.cli.commands import COMMANDS
from nla_jax.cli.main import main
from nla_jax.workdir import STAGES

OF_A_STAGE = ("--config=FILE.py", "--workdir", "--distributed", "(default 60)")
MENTIONED = {  # what must be found in a command's help, beside its summary
  **{name: OF_A_STAGE for name in ("run", *STAGES)},
  "inspect": ("PATH", ".gguf", "--chat-template"),
  "read": ("TEXT", "--nla", "--positions", "--best-of", "(default 4)"),
  "steer": ("TEXT", "--nla", "--edit", "--strength", "(default 32)"),
  "awareness": ("--benign", "--labels", "--grader", "(default 50)"),
  "convert": ("--kind", "--config", "FROM", "TO"),
  "push": ("DIR", "REPO", "--private"),
  "serve": ("--nla", "--host", "--port", "--secret-file", "--max-concurrent", "(default 5009)"),
  "watch": ("FOLDER", "--nla", "--out", "--budget", "--benign", "--fail-above", "(default 20)"),
  "organism": ("--config=FILE.py", "--workdir"),
  "audit": ("ORGANISM", "--nla", "--arms", "--budget", "--report", "(default 40)"),
  "trace": ("PHRASE", "--index", "--corpus", "--incident", "--planted", "(default 10)"),
  "plan": ("--topology", "--suggest", "--config.KEY=VALUE", "(default 6)"),
}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_usage_names_every_command_with_what_it_does(arguments, capsys):
  assert main(arguments) == 0
  printed = capsys.readouterr().out
  for name, command in COMMANDS.items():
    assert f"  {name:<9} {command.summary}\n" in printed


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(name, flag, capsys):
  assert main([name, flag]) == 0
  printed = capsys.readouterr()
  assert printed.err == "" and printed.out.startswith(f"usage: nla {name} ")
  for word in MENTIONED[name]:
    assert word in printed.out


def test_help_is_answered_before_anything_else_is_looked_at(capsys):
  assert main(["sft", "--config=/nowhere.py", "--help"]) == 0
  assert COMMANDS["sft"].summary in capsys.readouterr().out


@pytest.mark.parametrize(
  "arguments",
  [
    ["inspect"],
    ["inspect", "/nowhere"],
    ["convert", "one"],
    ["convert", "one", "two", "--kind=sft"],
    ["push", "one"],
    ["plan"],
    ["read", "no pair is named"],
    ["read", "--nla=/nowhere", "text"],
    ["read", "--nla=package:nla_of_nobody", "text"],
    ["read", "--nla=/nowhere", ""],
    ["serve"],
    ["serve", "--nla=/nowhere", "--port=0"],
    ["steer", "--nla=/nowhere", "text"],
    ["steer", "--nla=/nowhere", "--edit=a=b", "text"],
    ["plan", "--topology=v5p:2x2x1", "--no_such_flag"],
    ["run", "--no_such_flag"],
    ["--workdir=/tmp/unused_by_nla"],
    ["fly"],
  ],
)
def test_a_mistake_is_one_line(arguments, capsys):
  assert main(arguments) == 2
  printed = capsys.readouterr()
  assert printed.out == "" and printed.err.startswith("nla: ") and printed.err.count("\n") == 1
