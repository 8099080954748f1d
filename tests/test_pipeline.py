"""The whole path on the tiny config: it runs, it is skipped when done, and a killed run equals an uninterrupted one."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from support.run_process import (
  command,
  curve,
  evaluation,
  finish,
  lines,
  logs,
  reach,
  shards,
  start,
)

from nla_jax.cli.main import main
from nla_jax.json_lines import read_lines
from nla_jax.workdir import SAMPLES

TINY = [
  "--config.checkpoint_every=4",
  "--config.data.shard_rows=16",
  "--config.ar.steps=24",
  "--config.rl.steps=8",
  "--config.evaluation.best_of=2",
  "--config.evaluation.best_of_rows=8",
]


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
  return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="session")
def uninterrupted(shared):
  """A finished tiny run."""
  workdir = shared / "uninterrupted"
  assert finish([start(workdir, *TINY)], workdir) == [0], logs(workdir)
  return workdir


@pytest.fixture
def nla(capsys):
  """A function (stage, workdir, *options): runs that command in this process and gives its status and stderr."""

  def run(*arguments) -> tuple[int, str]:
    status = main(command(*arguments[:2], *TINY, *arguments[2:])[4:])
    return status, capsys.readouterr().err

  return run


def test_every_promised_number_is_in_metrics_json(uninterrupted):
  found = evaluation(uninterrupted)
  names = (
    "shuffled_vector",
    "zero_vector",
    "mean_vector",
    "empty_text",
    "retrieval",
    "mean_per_last_token",
  )
  estimates = [
    found["fve"][name] for name in ("round_trip", "teacher_text", "greedy", "round_trip_sft")
  ]
  for estimate in estimates + [found["controls"][name] for name in names]:
    assert (
      estimate["ci95"][0] <= estimate["value"] <= estimate["ci95"][1]
      and estimate["n"] == found["rows"]
    )
  # The AR has learned in RL, so the one before it is another reader.
  assert {"fixed_critic", "gain_of_rl_fixed", "shuffled_words_fixed"} <= found["fve"].keys()
  assert list(found["by_n"]) == ["1", "2"] and found["by_n"]["2"]["rows"] == 8
  assert "by_source" not in found and found["by_position"]
  assert found["av"]["loss_own"] > 0 and found["av"]["loss_shuffled"] > 0
  assert (
    0 <= found["parse_rate"] <= 1
    and found["tokens_mean"] > 0
    and 0 < found["baseline_variance"] <= 1
  )


def test_the_tiny_av_answers_in_form_so_that_rl_has_something_to_reward(uninterrupted):
  lines = curve(uninterrupted / "rl")
  assert max(line["parse_rate"] for line in lines) > 0.3
  assert all(np.isfinite(line["reward"]) for line in lines)
  assert all(line["sampler_gap"] < 1e-3 for line in lines if "sampler_gap" in line)


def test_the_report_has_what_each_example_said_before_rl(uninterrupted):
  page = (uninterrupted / "report.html").read_text()
  examples = json.loads(
    page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
  )
  assert len(examples) == 20
  assert all(isinstance(one["texts"]["round_trip_sft"], str) for one in examples)
  # An answer without an explanation has no FVE that looks like a score.
  scored = [(one["texts"]["round_trip_sft"], one["fve"]["round_trip_sft"]) for one in examples]
  assert all(fve is None if not text else np.isfinite(fve) for text, fve in scored)
  assert any(fve is not None for _, fve in scored)
  assert any(one["texts"]["round_trip_sft"] != one["texts"]["round_trip"] for one in examples)


def test_the_report_says_how_often_the_data_was_seen_and_what_of_it_was_left_out(uninterrupted):
  page = (uninterrupted / "report.html").read_text()
  facts = {
    name: json.loads((uninterrupted / name / "manifest.json").read_text())["facts"]
    for name in ("activations", "sft", "rl")
  }
  for note in facts["activations"]["notes"]:
    assert note in page
  for model, steps in (("av", 80), ("ar", 24)):
    rows, seen = facts["sft"][f"{model}_rows"], 16 * steps
    assert f"{seen:,} of {rows:,} rows: each row {seen / rows:.0f}" in page

  # The first step explains 16 activations, the other seven a group of each of 4.
  assert facts["rl"]["activations"] == 16 + 7 * 4 and "of the rows" in page


def test_the_pair_is_exported(uninterrupted):
  for role in ("av", "ar"):
    assert (uninterrupted / "hf" / role / "nla_meta.yaml").exists()


def test_the_exported_pair_is_the_trained_pair(uninterrupted):
  import nla_jax

  run, exported = nla_jax.load(uninterrupted), nla_jax.load(uninterrupted / "hf", compute="float32")
  texts = ["Next: a, b", "anything else"]
  np.testing.assert_allclose(
    run.reconstruct(texts), exported.reconstruct(texts), rtol=1e-4, atol=1e-4
  )
  vectors = np.random.default_rng(0).normal(size=(3, 64))
  ours, theirs = run.explain(vectors, greedy=True), exported.explain(vectors, greedy=True)
  assert [one.text for one in ours] == [one.text for one in theirs]
  assert len(run.read("The licence grants rights.", positions=[-1, 10])) == 2


def test_an_exported_pair_is_trained_further(uninterrupted, shared, nla):
  """`nla rl --config.init` begins where the pair ended, with its prompts, layer and scale, whatever the config says.

  With `rl.seed` it meets other activations first than the pair met in its training.
  """
  workdir = shared / "further"
  begin = [
    f"--config.init={uninterrupted / 'hf'}",
    "--config.prompts.av=Other {injection_char} words",
    "--config.layer=1",
    "--config.rl.seed=1",
  ]
  for stage in ("extract", "teach", "rl"):
    status, printed = nla(stage, workdir, *begin)
    assert status == 0, printed[-3000:]
  config = json.loads((workdir / "config.json").read_text())
  assert config["layer"] == 2 and config["prompts"]["av"].startswith("Explain")
  lines = curve(workdir / "rl")
  assert "kl" in lines[-1] and len(lines) == len(curve(uninterrupted / "rl"))
  first = [read_lines(one / "rl" / SAMPLES)[0]["context"] for one in (workdir, uninterrupted)]
  assert first[0] != first[1]
  status, printed = nla("rl", workdir, *begin, "--config.rl.group=3")
  assert status == 2 and "rl.group (made with 4, asked for 3)" in printed
  status, printed = nla("sft", shared / "adapted", *begin, "--config.lora.rank=4")
  assert status == 2 and "a pair of whole weights is trained further with" in printed


def test_the_loop_runs_with_every_knob_turned(uninterrupted, shared, nla):
  """Each knob's formula has its own test; here they work together in the loop, and the KL weight goes down."""
  workdir = shared / "knobs"
  shutil.copytree(uninterrupted, workdir, ignore=shutil.ignore_patterns("rl", "eval", "hf"))
  knobs = {
    "truncate": "true",
    "ar_ema": 0.5,
    "ar_teacher": 0.25,
    "kl": "k1",
    "kl_target": 0.5,
    "importance_cap": 2.0,
    "clip_high": 0.3,
    "dual_clip": 3.0,
    "advantage": "rloo",
    "average": "token",
    "repeat_cost": 0.1,
    "reword": 0.5,
    "reword_by": "order",
    "false_claim_cost": 0.2,
    "epochs": 2,
    "minibatches": 2,
  }
  status, printed = nla(
    "rl", workdir, *(f"--config.rl.{name}={value}" for name, value in knobs.items())
  )
  assert status == 0, printed[-3000:]
  lines = curve(workdir / "rl")
  weights = [line["kl_weight"] for line in lines if "kl_weight" in line]
  assert len(lines) == 8 and weights[-1] < weights[0]
  assert all(
    np.isfinite(line["reward"]) and line["av_skipped"] == line["ar_skipped"] == 0 for line in lines
  )


def test_looking_at_held_out_activations_changes_no_number_of_training(uninterrupted, shared, nla):
  """Nor do copies of the best parameters; before the first step the fixed AR is the one that is trained."""
  workdir = shared / "watched"
  shutil.copytree(uninterrupted, workdir, ignore=shutil.ignore_patterns("rl", "eval", "hf"))
  watch = ("--config.rl.watch_every=3", "--config.rl.watch_rows=16", "--config.rl.keep=best")
  status, printed = nla("rl", workdir, *watch)
  assert status == 0, printed[-3000:]

  lines, plain = curve(workdir / "rl"), curve(uninterrupted / "rl")
  assert [line["step"] for line in lines if "fve_fixed" in line] == [0, 3, 6, 8]
  assert [{name: line[name] for name in old} for line, old in zip(lines, plain)] == plain
  assert lines[0]["fve_fixed"] == pytest.approx(lines[0]["fve_held_out"], abs=1e-6)
  assert lines[-1]["fve_fixed"] != lines[-1]["fve_held_out"]
  best = max(line["fve_fixed"] for line in lines if "fve_fixed" in line)
  assert lines[-1]["kept_value"] == best and "kept the parameters of step" in printed


def test_the_options_of_the_recipe_work_together(uninterrupted, shared, nla):
  """Each option's formula has its own test."""
  workdir = shared / "recipe"
  shutil.copytree(uninterrupted, workdir, ignore=shutil.ignore_patterns("rl", "eval", "hf"))
  options = {
    "loss": "cispo",
    "advantage": "batch",
    "drop_constant": "true",
    "extremes": 2,
    "ar_texts": "best",
    "kl_taper": 8.0,
    "reward": "log",
    "epochs": 2,
    "av.accumulate": 2,
    "ar.accumulate": 2,
  }
  given = (f"--config.rl.{name}={value}" for name, value in options.items())
  status, printed = nla("rl", workdir, *given)
  assert status == 0, printed[-3000:]
  lines = curve(workdir / "rl")
  assert all(0 <= line["constant"] <= 1 for line in lines if "kl" in line)
  assert all(
    np.isfinite(line["reward"]) and line["av_skipped"] == line["ar_skipped"] == 0 for line in lines
  )


@pytest.mark.long
def test_adapters_stopped_on_four_devices_go_on_on_one(uninterrupted, shared, nla):
  """As whole models do, in accumulated batches; the base is not saved, but read again in its layout on the devices."""
  options = [
    "--config.lora.rank=4",
    "--config.av.steps=6",
    "--config.ar.steps=6",
    "--config.ar.accumulate=2",
    "--config.rl.steps=4",
    "--config.rl.ar_steps=1",
    "--config.rl.ar_teacher=0.25",
    "--config.rl.av.accumulate=2",
    "--config.rl.length_cost=0.01",
    "--config.checkpoint_every=100",
  ]
  # 1. SFT and the first steps of RL on a mesh with shards along both axes, until it is asked to stop.
  workdir, alone = shared / "adapted on four", shared / "adapted on one"
  for folder in (workdir, alone):
    trained = shutil.ignore_patterns("sft", "rl", "eval", "hf", "report.html")
    shutil.copytree(uninterrupted, folder, ignore=trained)
  mesh = ["--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
  process = start(workdir, *TINY, *options, *mesh, JAX_NUM_CPU_DEVICES="4")
  reach(lambda: lines(workdir / "rl" / "metrics.jsonl") >= 1, [process], workdir)
  process.send_signal(signal.SIGTERM)
  assert finish([process], workdir) == [75] and "rl stopped after" in logs(workdir), logs(workdir)
  assert not (workdir / "rl" / "manifest.json").exists()

  # 2. What comes of it on one device is what one device makes.
  assert nla("sft", alone, *options)[0] == 0
  stopped = shared / "adapted from sft"
  shutil.copytree(workdir, stopped, ignore=shutil.ignore_patterns("rl"))
  for folder in (workdir, stopped):
    status, printed = nla("rl", folder, *options)
    assert status == 0, printed[-3000:]
  for found, expected in (
    (curve(workdir / "sft" / "ar"), curve(alone / "sft" / "ar")),
    (curve(workdir / "sft" / "av"), curve(alone / "sft" / "av")),
    (curve(workdir / "rl"), curve(stopped / "rl")),
  ):
    assert len(found) == len(expected) > 3
    for one, other in zip(found, expected):
      assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
  assert curve(workdir / "rl")[-1]["av_gradient_norm"] > 0


def test_a_finished_run_is_skipped_and_another_request_is_refused(uninterrupted, nla):
  before = evaluation(uninterrupted)
  status, printed = nla("run", uninterrupted)
  assert status == 0 and printed.count("already done") == 6, printed[-2000:]
  assert evaluation(uninterrupted) == before
  status, printed = nla("run", uninterrupted, "--config.layer=1")
  assert status == 2 and "layer (made with 2, asked for 1)" in printed


def test_a_run_killed_in_every_stage_and_started_again_gives_the_same_numbers_bit_for_bit(
  uninterrupted, shared
):
  workdir, compiled = shared / "killed", shared / "compiled"
  shutil.copytree(
    os.environ["JAX_COMPILATION_CACHE_DIR"], compiled
  )  # a killed process may leave half an entry
  begin = lambda: start(workdir, *TINY, JAX_COMPILATION_CACHE_DIR=str(compiled))
  saved = lambda folder: any(
    path.name.isdigit() for path in (workdir / folder / "checkpoints").glob("*")
  )
  for ready in (
    lambda: shards(workdir) >= 2,
    lambda: saved("sft/ar"),
    lambda: saved("sft/av"),
    lambda: saved("rl"),
  ):
    process = begin()
    reach(ready, [process], workdir)
    process.kill()
    process.wait()
  assert not (workdir / "rl" / "manifest.json").exists() and not (workdir / "eval").exists()
  assert finish([begin()], workdir) == [0], logs(workdir)
  for name in ("sft/ar", "sft/av", "rl"):
    assert curve(workdir / name) == curve(uninterrupted / name), name
  assert evaluation(workdir) == evaluation(uninterrupted)
