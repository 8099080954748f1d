"""Which suites a run's config names, and what the command line makes of them."""

import pytest

from nla_jax.cli import stages
from nla_jax.config import default_config
from nla_jax.errors import NLAError
from nla_jax.evaluation.suite import QUESTIONS
from nla_jax.run import questions


def config(names, preset="quick"):
  found = default_config()
  found.suites.update(names=names, preset=preset)
  return found


def test_by_default_no_question_is_asked():
  assert questions.names(default_config()) == []


def test_names_come_in_the_tables_order_and_what_always_runs_is_no_question():
  named = config(f"{QUESTIONS[1]}, retention,{QUESTIONS[0]},")
  assert questions.names(named) == list(QUESTIONS[:2])


def test_a_wrong_name_or_preset_is_refused_before_anything_is_read():
  with pytest.raises(NLAError, match="no suite sufix"):
    questions.names(config("sufix"))
  with pytest.raises(NLAError, match="no preset 'slow'"):
    questions.names(config("", "slow"))


def test_suites_are_of_the_evaluation_alone(tmp_path):
  line = ["--config=configs/tiny.py", f"--workdir={tmp_path}", "--suites=hints"]
  with pytest.raises(NLAError, match="--suites is of `nla eval` and `nla run`, and this is sft"):
    stages.main(["sft", *line])
