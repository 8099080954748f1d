"""The charts over training: a suite's score against FVE, and its controls as flat lines."""

from nla_jax.evaluation.findings import Finding, Score, to_json, void
from nla_jax.evaluation.report import over_training, page


def score(row, column, value):
  return Score(row, column, value, None, 50)


def finding(scores, verdict="So it is."):
  return to_json(Finding("?", verdict, "share of 1", tuple(scores)))


def point(step, fve, explanation, *, controls=False, lost=False):
  judges = ("frozen target", "embedder")
  scores = []
  for task in ("tense", "topic"):
    scores.append(score("probe", f"{task}, probe on h", 0.9))
    for i, judge in enumerate(judges):
      column = void(f"{task}, {judge}") if lost and i == 0 else f"{task}, {judge}"
      scores.append(score("explanation", column, explanation + 0.1 * i + 0.02 * (task == "topic")))
      scores += [score("logit_lens", column, 0.4)] if controls else []
  suites = {
    "classification": finding(scores),
    "hints": finding(
      [score("mark means right", "target", 0.1)], "The target does not use the mark."
    ),
  }
  return {"step": step, "fve": {"value": fve, "ci95": None}, "suites": suites}


def test_a_suite_is_drawn_against_fve_with_the_last_steps_controls():
  points = [point(0, 0.3, 0.5), point(50, 0.35, 0.55), point(100, 0.33, 0.6, controls=True)]
  classification, hints = over_training.charts_of(points)
  assert classification["title"] == "Classification"
  assert classification["note"] == "frozen target, mean of 2"
  assert classification["legend"] == ["explanation", "logit lens", "probe on h"]
  assert classification["svg"].count("<circle") == 3 + 2 + 2
  assert hints["svg"] == "" and hints["missing"] == "The target does not use the mark."


def test_a_judge_that_was_void_at_one_step_is_shown_at_none():
  points = [point(0, 0.3, 0.5), point(50, 0.35, 0.55, lost=True)]
  assert over_training.charts_of(points)[0]["note"] == "embedder, mean of 2"


def test_the_report_shows_them(tmp_path):
  points = [point(0, 0.3, 0.5), point(50, 0.35, 0.55)]
  metrics = {"fve": {"round_trip": 0.3}, "rows": 3, "groups": 3}
  path = page.write_report(tmp_path / "r.html", {"metrics": metrics, "over_training": points})
  text = path.read_text()
  assert 'id="over-training"' in text and "The target does not use the mark." in text
  bare = page.write_report(tmp_path / "b.html", {"metrics": metrics}).read_text()
  assert 'id="over-training"' not in bare
