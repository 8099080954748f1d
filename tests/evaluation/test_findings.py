"""A finding comes back from JSON as it was, holes left out, and says on a terminal what failed."""

import json

import numpy as np

from nla_jax.evaluation.findings import (
  Finding,
  Gate,
  Score,
  from_json,
  is_void,
  lines,
  read_all,
  rows_and_columns,
  to_json,
  void,
)

FINDING = Finding(
  question="Do the words say what comes next?",
  verdict="They do.",
  unit="share of 1",
  scores=(
    Score("explanation", "hard, frozen target", 0.5, (0.4, 0.6), 50, 0.1),
    Score("shuffled", "hard, frozen target", 0.1, None, 50, 0.1),
    Score("explanation", "easy, rules", 0.9, (0.8, 1.0), 50),
  ),
  gates=(Gate("skyline", False, "0.6 of 1, at least 0.8 is asked"),),
  curves={"explanation": [(4.0, 0.2), (8.0, 0.3)]},
  axes=("tokens", "accuracy"),
  examples=({"text": "a town", "options": ["x", "y"], "right": 1},),
  data={"model": {"weights": [1.0]}},
)


def test_a_finding_comes_back_as_it_was():
  assert from_json(json.loads(json.dumps(to_json(FINDING)))) == FINDING


def test_numbers_of_numpy_are_plain_and_what_is_none_is_a_hole():
  scores = (
    Score("a", "x", np.float32(0.5), (np.float64(0.25), 0.75), np.int64(3)),
    Score("b", "x", float("nan"), (float("nan"), 1.0), 3),
    Score("c", "x", 0.25, (float("nan"), 1.0), 3),
  )
  written = json.dumps(to_json(FINDING._replace(scores=scores)), allow_nan=False)
  found = from_json(json.loads(written)).scores
  assert found == (Score("a", "x", 0.5, (0.25, 0.75), 3), Score("c", "x", 0.25, None, 3))


def test_what_is_no_finding_costs_no_other():
  broken = {"a": None, "b": {"question": "?"}, "c": {**to_json(FINDING), "scores": [{"row": 1}]}}
  assert read_all({**broken, "good": to_json(FINDING)}) == {"good": FINDING}
  assert read_all("nothing") == {}


def test_rows_and_columns_keep_the_order_of_their_first_score():
  rows, columns = rows_and_columns(FINDING.scores)
  assert rows == ["explanation", "shuffled"]
  assert columns == ["hard, frozen target", "easy, rules"]


def test_void_is_said_once():
  assert void(void("rules")) == void("rules") and is_void(void("rules")) and not is_void("rules")


def test_a_terminal_shows_scores_failed_gates_and_the_verdict():
  text = "\n".join(lines("suffix", FINDING))
  for part in ("+0.500  [+0.400, +0.600]  chance 0.100", "[no interval]", "failed: skyline"):
    assert part in text
  assert text.endswith("They do.")
