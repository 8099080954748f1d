"""The ladder says which rung of a question broke first, and chooses no judge by its score."""

import json

import pytest
from support.known_pair import KnownNLA, write_store

from nla_jax import quantities
from nla_jax.evaluation import evaluate, ladder
from nla_jax.evaluation.findings import Finding, Gate, Score, to_json, void
from nla_jax.evaluation.report import answers, page
from nla_jax.interop.pairs import model_card

HELD = Gate("in the activation, tense", True, "0.90 from 0.85 on, chance 0.50")
NOT_HELD = Gate("in the activation, number", False, "0.52 from 0.45 on, chance 0.50")


def finding(scores=(), gates=()) -> Finding:
  return Finding("Is it said?", "It is.", "share of 1", tuple(scores), tuple(gates))


def explained(column, value, low, high, chance=0.5) -> Score:
  return Score("explanation", column, value, (low, high), 40, chance)


def states(found) -> list[str]:
  return [one.state for one in ladder.rungs(found)]


def test_a_question_that_holds_all_the_way():
  scores = [
    Score("probe", "tense, probe on h", 0.9, (0.8, 1.0), 40, 0.5),
    explained("tense, frozen target", 0.7, 0.6, 0.8),
    explained("tense, AR", 0.8, 0.7, 0.9),
  ]
  found = finding(scores, [Gate("behaviour, it does", True, "+0.2"), HELD])
  assert states(found) == ["holds", "holds", "holds", "holds", "not known"]
  assert ladder.rungs(found)[2].detail == "0.70 [0.60, 0.80], chance 0.50"


def test_the_first_sound_judge_decides_and_not_the_best():
  scores = [
    explained(void("tense, frozen target"), 0.9, 0.8, 1.0),
    explained("tense, rules", 0.5, 0.4, 0.6),
    explained("tense, embeddings", 0.8, 0.7, 0.9),
  ]
  assert states(finding(scores, [HELD]))[2] == "broken"
  # One that cannot read the context itself decides nothing either.
  weak = Gate("skyline, tense, rules", False, "0.3 of 1")
  assert states(finding(scores, [HELD, weak]))[2] == "holds"


def test_of_several_tasks_some_may_hold():
  scores = [
    explained("tense, frozen target", 0.7, 0.6, 0.8),
    explained("number, frozen target", 0.5, 0.4, 0.6),
  ]
  found = ladder.rungs(finding(scores, [HELD, NOT_HELD]))
  assert [one.state for one in found[1:3]] == ["in part", "in part"]
  assert found[1].detail == "1 of 2 tasks"


@pytest.mark.parametrize(
  "scores, state",
  [([], "nobody asked"), ([explained(void("rules"), 0.9, 0.8, 1.0)], "no judge passed its gates")],
)
def test_what_nobody_knows_is_not_broken(scores, state):
  rung = ladder.rungs(finding(scores))[2]
  assert (rung.state, rung.detail) == ("not known", state)


def test_an_interval_decides_and_not_the_value():
  assert states(finding([explained("rules", 0.9, 0.4, 1.0)]))[2] == "broken"
  assert states(finding([Score("explanation", "rules", 0.9, None, 3, 0.5)]))[2] == "broken"


def test_the_behaviour_comes_first_and_the_rest_was_not_asked():
  suites = {"hints": to_json(finding(gates=[Gate("behaviour, the mark", False, "+0.00")]))}
  (steps,) = ladder.of_suites(suites).values()
  assert ladder.first_broken(steps) == "behaviour"
  assert [one["state"] for one in steps[1:]] == ["not known"] * 4
  # Suites that ask for no rung have none.
  assert ladder.of_suites({"steganography": suites["hints"]}) == {}


def test_of_contrasts_the_hard_one_decides():
  scores = [
    explained("against neutral, wrong, rules", 0.9, 0.8, 1.0),
    explained("against harmful, answered, rules", 0.5, 0.4, 0.6),
  ]
  assert states(finding(scores))[2] == "broken"


def test_the_report_and_the_card_show_it(tmp_path):
  metrics = evaluate(KnownNLA(), write_store(tmp_path / "store"), bootstrap_samples=20).metrics
  plain = page.write_report(tmp_path / "plain.html", {"metrics": metrics}).read_text()
  assert 'id="ladder"' not in plain and quantities.LADDER not in metrics

  hostile = Gate("in the activation, x", False, "<b>|</b>")
  scores = [explained("x, frozen target", 0.7, 0.6, 0.8)]
  suites = {"classification": to_json(finding(scores, [hostile]))}
  metrics = json.loads(json.dumps(metrics | {"ladder": ladder.of_suites(suites)}))
  (row,) = answers.rungs(metrics)
  assert row["broken"] == "activation" and row["rungs"][2]["tone"] == "good"
  shown = page.write_report(tmp_path / "page.html", {"metrics": metrics}).read_text()
  assert 'id="ladder"' in shown and "&lt;b&gt;|" in shown and "<b>|</b>" not in shown
  card = model_card._how_well(metrics)
  assert "| classification | **not known**: nobody asked | **broken**: <b>\\|</b> |" in card
