"""A resumed stage's curve has every step once, and what a person sees counts what was done before."""

from nla_jax.progress import MetricsLog, Progress, StepLines, read_metrics, track
from nla_jax.workdir import CURVE


def test_a_resumed_curve_drops_the_steps_that_are_done_again(tmp_path):
  log = MetricsLog(tmp_path)
  for step in range(5):
    log.write(step, loss=step / 2)
  log.close()

  log = MetricsLog(tmp_path, resume_step=3)  # the last checkpoint was at step 3
  log.write(3, loss=9)
  log.close()
  assert read_metrics(tmp_path) == [
    {"step": 0, "loss": 0.0},
    {"step": 1, "loss": 0.5},
    {"step": 2, "loss": 1.0},
    {"step": 3, "loss": 9.0},
  ]
  assert any((tmp_path / "tensorboard").iterdir())


def test_a_step_may_have_several_lines(tmp_path):
  lines = StepLines(tmp_path / "samples.jsonl")
  lines.write(0, text="a")
  lines.write(0, text="b")
  lines.close()
  StepLines(tmp_path / "samples.jsonl", resume_step=1).close()
  assert (tmp_path / "samples.jsonl").read_text().count('"step": 0') == 2


def test_a_stage_without_a_curve_has_none(tmp_path):
  assert read_metrics(tmp_path) == [] and not (tmp_path / CURVE).exists()


def test_a_log_file_gets_the_rate_of_this_process_alone(capsys):
  progress = Progress("extract", total=10, unit="row", done=8)
  progress.advance(2, loss=0.5)
  progress.close()
  said = capsys.readouterr().err
  assert said.startswith("extract: 10/10 row  ") and "0 s left  loss 0.5" in said


def test_track_gives_every_item():
  assert list(track("abc", "read", "letter")) == ["a", "b", "c"]
