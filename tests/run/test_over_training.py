"""`nla eval --over_training`: which steps, what of each, and that nothing is measured twice."""

from types import SimpleNamespace

import pytest

from nla_jax import files
from nla_jax.cli import stages
from nla_jax.config import default_config
from nla_jax.errors import NLAError
from nla_jax.evaluation.findings import Finding, to_json
from nla_jax.run import over_training
from nla_jax.training.loop import Session
from nla_jax.workdir import params_of, snapshot_of


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run whose RL kept the steps 2 and 4 of 6; the list of (step, settings, suites) that are measured."""
  config = default_config()
  config.rl.steps = 6
  config.suites.names = "hints"
  measured = []

  def load(workdir, *, run, stage="rl", snapshot=0):
    return SimpleNamespace(step=0 if stage == "sft" else snapshot or 6)

  def draw(run, nla, before, **settings):
    return SimpleNamespace(step=nla.step, settings=settings)

  def measure(subject, names, kept):
    measured.append((subject.step, subject.settings, list(names)))
    found = {name: to_json(Finding("?", "So it is.", "share of 1", ())) for name in names}
    fve = {"value": 0.1 * subject.step, "ci95": None, "n": 3}
    return SimpleNamespace(metrics={"fve": {"round_trip": fve}, "suites": found})

  monkeypatch.setattr(over_training, "load_run", load)
  monkeypatch.setattr(over_training.questions, "draw_of", draw)
  monkeypatch.setattr(over_training.harness, "measure", measure)
  monkeypatch.setattr(over_training.report, "write_run_report", lambda run: None)
  for step in (4, 2):
    for name in ("av", "ar"):
      params_of(snapshot_of(tmp_path / "rl", step), name).mkdir(parents=True)
  return SimpleNamespace(
    config=config,
    workdir=tmp_path,
    path=lambda stage: tmp_path / stage,
    parent=lambda stage: SimpleNamespace(path=tmp_path / stage, digest="d"),
    measured=measured,
  )


def test_every_kept_step_is_measured_once_and_baselines_with_the_last(run):
  over_training.evaluate(run)
  assert [(step, given["baselines"]) for step, given, _ in run.measured] == [
    (0, False),
    (2, False),
    (4, False),
    (6, True),
  ]
  assert {given["preset"] for _, given, _ in run.measured} == {"quick"}
  point = files.read_json(run.workdir / "eval" / "over_training" / "000004.json")
  assert point["step"] == 4 and point["fve"]["value"] == pytest.approx(0.4)

  # Again: nothing. Another suite: every step. A step whose file is gone: that one.
  over_training.evaluate(run)
  assert len(run.measured) == 4
  run.config.suites.names = "hints,writing"
  over_training.evaluate(run)
  assert len(run.measured) == 8 and run.measured[-1][2] == ["hints", "writing"]
  (run.workdir / "eval" / "over_training" / "000002.json").unlink()
  over_training.evaluate(run)
  assert [step for step, _, _ in run.measured[8:]] == [2]


def test_by_default_the_five_suites_of_what_explanations_say(run):
  run.config.suites.names = ""
  over_training.evaluate(run)
  assert run.measured[0][2] == list(over_training.SUITES)


def test_a_step_that_was_half_written_is_none(run, tmp_path):
  params_of(snapshot_of(tmp_path / "rl", 5), "av").mkdir(parents=True)
  assert over_training.snapshots(tmp_path / "rl") == [2, 4]


def test_rl_that_kept_no_step_is_refused(run, tmp_path):
  run.path = lambda stage: tmp_path / "elsewhere" / stage
  with pytest.raises(NLAError, match=r"set config\.snapshot_every before `nla rl`"):
    over_training.evaluate(run)


def test_steps_that_are_kept_are_neither_none_nor_the_last(tmp_path):
  session = Session("toy", tmp_path, 0, 1, 1, lambda: None, snapshot_every=2)
  assert [step for step in range(1, 7) if session.snapshot_is_due(step, 6)] == [2, 4]
  assert not Session("toy", tmp_path, 0, 1, 1, lambda: None).snapshot_is_due(2, 6)


def test_over_training_is_of_the_evaluation_alone(tmp_path):
  line = ["--config=configs/tiny.py", f"--workdir={tmp_path}", "--over_training"]
  with pytest.raises(NLAError, match="--over_training is of `nla eval`, and this is sft"):
    stages.main(["sft", *line])
