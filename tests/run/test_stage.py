"""A stage is skipped where it is done, continued where it was begun alike, and refused where it was made otherwise."""

import pytest

from nla_jax.errors import NLAError
from nla_jax.run.facts import Reinforced, Supervised, read_facts
from nla_jax.run.stage import closed_stage, digest, open_stage
from nla_jax.workdir import MANIFEST, REQUEST

REQUESTED = {"layer": 2, "data": {"rows": 3, "shares": (1, 2)}, "made_from": {}}


def test_a_new_stage_is_begun_and_not_done(tmp_path):
  stage = open_stage(tmp_path / "sft", REQUESTED)
  assert not stage.done
  assert (tmp_path / "sft" / REQUEST).exists() and not (tmp_path / "sft" / MANIFEST).exists()


def test_the_same_request_continues_and_a_finished_stage_is_done(tmp_path):
  open_stage(tmp_path, REQUESTED)
  stage = open_stage(tmp_path, REQUESTED)
  assert not stage.done
  stage.finish(samples=8)
  assert stage.done
  again = open_stage(tmp_path, REQUESTED)
  assert again.done and again.facts == {"samples": 8}


@pytest.mark.parametrize("finished", [False, True])
def test_another_request_is_refused_by_the_names_of_the_fields(tmp_path, finished):
  stage = open_stage(tmp_path, REQUESTED)
  if finished:
    stage.finish()
  else:
    (tmp_path / "store").mkdir()
  other = {"layer": 2, "data": {"rows": 4, "shares": [1, 2]}, "made_from": {"extract": "abc"}}
  with pytest.raises(NLAError, match=r"data\.rows \(made with 3, asked for 4\)") as caught:
    open_stage(tmp_path, other)
  assert "made_from.extract (made with None, asked for 'abc')" in str(caught.value)
  assert "layer" not in str(caught.value) and "shares" not in str(caught.value)


def test_an_unfinished_stage_is_not_read_and_says_which_command_makes_it(tmp_path):
  open_stage(tmp_path, REQUESTED)
  with pytest.raises(NLAError, match="`nla sft`"):
    closed_stage(tmp_path, "sft")


def test_what_a_stage_was_made_from_is_its_digest(tmp_path):
  stage = open_stage(tmp_path, REQUESTED)
  stage.finish()
  assert closed_stage(tmp_path, "sft").digest == stage.digest == digest(stage.request)
  other = open_stage(tmp_path / "other", {**REQUESTED, "layer": 3})
  assert other.digest != stage.digest


def test_the_seconds_of_a_stopped_run_count(tmp_path):
  stopped = open_stage(tmp_path, REQUESTED)
  stopped._begun -= 100
  stopped.note_progress()
  stage = open_stage(tmp_path, REQUESTED)
  stage._begun -= 10
  stage.finish()
  assert 110 <= closed_stage(tmp_path, "sft").seconds < 115


def test_facts_have_names_and_one_that_is_missing_is_named(tmp_path):
  stage = open_stage(tmp_path, REQUESTED)
  stage.finish(injection_scale=2.5, av_examples=4, ar_examples=6, more=1)
  facts = read_facts(closed_stage(tmp_path, "sft"), Supervised)
  assert facts == Supervised(injection_scale=2.5, av_examples=4, ar_examples=6)
  with pytest.raises(NLAError, match="does not say samples"):
    read_facts(stage, Reinforced)


def test_a_key_that_an_earlier_version_lacked_counts_as_its_default(tmp_path):
  old = open_stage(tmp_path, REQUESTED)
  old.finish()
  defaults = {"layer": 9, "data": {"rows": 9, "kind": "plain"}, "adapter": ""}
  asked = {**REQUESTED, "data": {**REQUESTED["data"], "kind": "plain"}, "adapter": ""}
  now = open_stage(tmp_path, asked, defaults)
  assert now.done and now.digest == old.digest  # so stages made from it before still know it

  with pytest.raises(NLAError, match=r"adapter \(made with '', asked for 'x'\)"):
    open_stage(tmp_path, {**asked, "adapter": "x"}, defaults)
  other = {**asked, "data": {**asked["data"], "rows": 9}}
  with pytest.raises(NLAError, match=r"data\.rows \(made with 3, asked for 9\)"):
    open_stage(tmp_path, other, defaults)


def test_a_request_that_came_to_nothing_binds_nobody(tmp_path):
  """As where the file that was named is refused: another may be named in its place."""
  open_stage(tmp_path, REQUESTED).note_progress()
  other = {**REQUESTED, "layer": 9}
  assert open_stage(tmp_path, other).request["layer"] == 9
  (tmp_path / "store").mkdir()
  with pytest.raises(NLAError, match="layer"):
    open_stage(tmp_path, REQUESTED)
