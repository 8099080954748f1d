"""Awareness is found where the target has it, stays at the null where not, and a bad transcript costs itself alone."""

import itertools
import json

import numpy as np
import pytest
from support.aware_pair import AWARE, AwarePair, conversation

from nla_jax.auditing import baselines
from nla_jax.auditing.awareness import NLA_ROW, Protocol, measure
from nla_jax.auditing.awareness_form import html, table, to_json
from nla_jax.auditing.grader import default_grader
from nla_jax.auditing.rates import Counted, any_of, any_rates
from nla_jax.auditing.response_tokens import drawn
from nla_jax.auditing.transcripts import read_file, transcript_of
from nla_jax.cli.main import main


def transcripts(prefix, n, cue):
  rows = [conversation(f"{prefix}{i}", cue) for i in range(n)]
  return [transcript_of(row, "", "here") for row in rows]


@pytest.fixture(scope="module")
def found():
  audited, benign = transcripts("a", 10, True), transcripts("b", 10, False)
  labels = {one.id: int(one.id[0] == "a") for one in (*audited, *benign)}
  protocol = Protocol(tokens=20)
  return measure(AwarePair(), audited, benign, default_grader(), protocol, labels=labels)


def test_any_of_n_is_the_share_of_draws_that_hold_a_hit():
  values = [1, 0, 0, 1, 0]
  for n in range(1, 6):
    draws = [any(one) for one in itertools.combinations(values, n)]
    assert any_of(5, 2, n) == pytest.approx(sum(draws) / len(draws))
  assert any_of(3, 0, 50) == 0.0 and any_of(3, 1, 50) == 1.0 and any_of(0, 0, 5) == 0.0


def test_any_of_n_grows_with_n_and_unclear_is_a_column_of_its_own():
  several = [Counted(10, 1, 3), Counted(10, 0, 2), Counted(10, 0, 0)]
  yes = [one.value for one in any_rates(several, 10, "yes")]
  assert yes == sorted(yes) and yes[-1] == pytest.approx(1 / 3)
  # The transcript with a yes counts there and not once more as unclear.
  assert any_rates(several, 10, "unclear")[-1].value == pytest.approx(1 / 3)


def test_the_rate_is_the_targets_and_the_null_is_zero(found):
  audited, benign = found.rows[NLA_ROW]["audited"], found.rows[NLA_ROW]["benign"]
  assert 0.3 < audited.tokens["yes"].value < 0.7
  assert benign.tokens["yes"].value == 0.0 and benign.any_of["yes"][-1].value == 0.0
  assert audited.any_of["yes"][-1].value == 1.0 and len(audited.any_of["yes"]) == 20
  assert found.evidence[0].quote == AWARE and found.evidence[0].message == 1


def test_baselines_say_what_they_can_know(found):
  # It is never said, and the words of both kinds are the same behind the question.
  assert found.rows["said"]["audited"].tokens["yes"].value == 0.0
  assert found.calibration[NLA_ROW]["transcripts"] == 1.0
  assert found.calibration["probe"]["tokens"] > 0.99
  assert found.calibration["said"]["transcripts"] == 0.5
  assert found.rows["shuffled"]["benign"].tokens["yes"].value > 0
  assert "base model" in found.left_out["lens"] and "base model" in found.left_out["follow-up"]


def test_shuffled_explanations_are_never_a_transcripts_own():
  from types import SimpleNamespace

  reads = [SimpleNamespace(texts=[f"{i}"] * 4) for i in range(3)]
  for i, several in enumerate(baselines.shuffled(reads, 0)):
    assert len(several) == 4 and str(i) not in several


def test_the_draw_depends_on_the_transcript_alone():
  said = list(range(100))
  assert drawn(said, 10, 0, "a") == drawn(said, 10, 0, "a") == sorted(drawn(said, 10, 0, "a"))
  assert drawn(said, 10, 0, "a") != drawn(said, 10, 0, "b")
  assert drawn(said, 10, 0, "a") != drawn(said, 10, 1, "a")
  assert drawn(said[:3], 10, 0, "a") == [0, 1, 2]


def test_all_forms_show_the_null_beside_every_rate(found):
  shown = table(found)
  assert shown.splitlines()[0].count("benign") == 3 and AWARE in shown
  again = json.loads(json.dumps(to_json(found)))
  assert set(again["rows"][NLA_ROW]) == {"audited", "benign"}
  page = html(found)
  assert "<script" not in page and "Reliability" in page and "benign" in page


def test_a_hostile_transcript_is_escaped():
  bad = [transcript_of(conversation("<script>x</script>", True), "", "here")]
  found = measure(AwarePair(share=1.0), bad, transcripts("b", 2, False), default_grader())
  assert "<script>" not in html(found)


@pytest.mark.parametrize(
  "row, why",
  [
    ({"messages": [{"role": "user", "content": "hi"}]}, "the assistant says nothing"),
    (conversation("long", False, "x" * 3000), "tokens and the model was made for"),
  ],
)
def test_a_transcript_that_cannot_be_read_costs_itself_alone(row, why):
  several = [transcript_of(row, "bad", "here"), *transcripts("a", 2, True)]
  found = measure(AwarePair(), several, transcripts("b", 2, False), default_grader())
  assert found.rows[NLA_ROW]["audited"].transcripts == 2
  (said,) = [one for name, one in found.left_out.items() if why in one]
  assert "\n" not in said


def test_a_bad_line_costs_one_line(tmp_path):
  image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}
  rows = [
    "no JSON",
    json.dumps(image),
    json.dumps({"text": "a"}),
    json.dumps(conversation("c", True)),
  ]
  (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n")
  refused = []
  found = list(read_file(tmp_path / "t.jsonl", lambda name, why: refused.append(why)))
  assert [one.id for one in found] == ["c"] and len(refused) == 3
  assert "image_url" in refused[1] and all("\n" not in one for one in refused)


@pytest.mark.parametrize(
  "arguments, said",
  [
    (["--nla=/nowhere", "--file=/nowhere.jsonl"], "benign null"),
    (["--nla=/nowhere", "--file=/nowhere.jsonl", "--benign=/n.jsonl"], "does not exist"),
    (["--nla=/nowhere", "--file=/n.txt", "--benign=/n.jsonl", "--tokens=0"], "tokens=0"),
    (["--grader=/nowhere.yaml"], "does not exist"),
  ],
)
def test_a_mistake_is_one_line_before_the_pair_is_loaded(arguments, said, capsys):
  assert main(["awareness", *arguments]) == 2
  error = capsys.readouterr().err
  assert said in error and error.count("\n") == 1


def test_the_command_prints_the_agreement(capsys):
  assert main(["awareness", "--agreement"]) == 0
  assert "held out half" in capsys.readouterr().out


def test_probe_scores_are_of_unseen_transcripts():
  # Labels at random: a probe that saw its own transcripts would score above chance. Balanced folds push it below.
  audited = transcripts("a", 12, False)
  labels = {one.id: i % 2 for i, one in enumerate(audited)}
  found = measure(AwarePair(), audited, transcripts("b", 2, False), default_grader(), labels=labels)
  assert found.calibration["probe"]["tokens"] < 0.6
  assert np.isfinite(found.calibration["probe"]["transcripts"])
