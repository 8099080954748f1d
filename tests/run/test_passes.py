"""How often data is seen is said in words."""

import json

import pytest
from support import known_pair

from nla_jax.evaluation.report.verdict import fve_rows, headline
from nla_jax.evaluation.subject import draw_subject
from nla_jax.run.passes import described, passes


@pytest.mark.parametrize(
  ("seen", "rows", "said"),
  [
    (640, 2, "each row 320 times"),
    (640, 3, "each row 213 times"),
    (16, 12, "each row 1.3 times"),
    (12, 12, "each row 1.0 times"),
    (16, 800, "0.02 of the rows"),
    (1, 1_000_000, "1e-06 of the rows"),
  ],
)
def test_passes_are_counted_above_one_and_are_a_share_below(seen, rows, said):
  assert passes(seen, rows) == said


def test_a_stage_of_an_earlier_version_did_not_count_its_rows():
  assert described(1280, 0) == "1,280"
  assert described(1280, 4) == "1,280 of 4 rows: each row 320 times"


def test_fewer_held_out_rows_than_asked_for_are_said(tmp_path, capsys):
  store = known_pair.write_store(tmp_path / "store")
  draw = lambda rows: draw_subject(
    known_pair.KnownNLA(), store, texts=None, before_rl=None, rows=rows, seed=5
  )
  draw(known_pair.ROWS)
  assert "held out" not in capsys.readouterr().err
  draw(500)
  said = f"eval: {known_pair.ROWS} activations are held out, fewer than the 500 asked for"
  assert said in capsys.readouterr().err


@pytest.mark.parametrize("groups", [2, 7, 8])
def test_the_report_doubts_intervals_over_few_groups(groups):
  metrics = {"groups": groups, "rows": 400, "baseline_variance": 0.9}
  metrics |= {"fve": {"round_trip": {"value": 0.5, "ci95": [0.4, 0.6], "n": 400}}}
  found = headline(metrics, fve_rows(metrics, {}))["findings"]
  assert json.dumps(found).count("Student's t over so few") == (groups < 8)
