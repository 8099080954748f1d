"""The whole path on the tiny config: it runs, it is skipped when done, and a killed run equals an uninterrupted one."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TINY = ["--config.checkpoint_every=4", "--config.data.shard_rows=16", "--config.rl.steps=8"]


def command(stage: str, workdir: pathlib.Path, *more: str) -> list[str]:
  config = ROOT / "configs" / "tiny.py"
  return [sys.executable, "-m", "nla_jax.cli", stage, f"--config={config}", f"--workdir={workdir}", *TINY, *more]


def environment(tmp: pathlib.Path) -> dict[str, str]:
  return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(tmp / "compiled")}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
  return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="session")
def uninterrupted(shared):
  """A finished tiny run."""
  workdir = shared / "uninterrupted"
  done = subprocess.run(command("run", workdir), env=environment(shared), capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir


def metrics(workdir: pathlib.Path) -> dict:
  return json.loads((workdir / "eval" / "metrics.json").read_text())


def kill_when(ready, stage: str, workdir: pathlib.Path, env: dict[str, str]) -> None:
  """Starts the run and sends SIGKILL as soon as `ready()` is true; fails if the run ends before."""
  process = subprocess.Popen(command("run", workdir), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  deadline = time.time() + 400
  while not ready():
    assert process.poll() is None, f"the run ended before it could be killed in {stage}"
    assert time.time() < deadline, f"{stage} was never reached"
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (workdir / "eval" / "metrics.json").exists()


def lines(path: pathlib.Path) -> int:
  return path.read_text().count("\n") if path.exists() else 0


def test_every_promised_number_is_in_metrics_json(uninterrupted):
  found = metrics(uninterrupted)
  names = ("shuffled_vector", "zero_vector", "mean_vector", "empty_text", "retrieval", "mean_per_last_token")
  estimates = [found["fve"][name] for name in ("round_trip", "gold_text", "greedy", "round_trip_sft")]
  for estimate in estimates + [found["controls"][name] for name in names]:
    assert estimate["ci95"][0] <= estimate["value"] <= estimate["ci95"][1] and estimate["n"] == found["rows"]
  assert found["av"]["loss_own"] > 0 and found["av"]["loss_shuffled"] > 0
  assert 0 <= found["parse_rate"] <= 1 and found["tokens_mean"] > 0 and 0 < found["baseline_variance"] <= 1


def test_the_tiny_av_answers_in_form_so_that_rl_has_something_to_reward(uninterrupted):
  curve = [json.loads(line) for line in (uninterrupted / "rl" / "metrics.jsonl").read_text().splitlines()]
  assert max(line["parse_rate"] for line in curve) > 0.3
  assert all(np.isfinite(line["reward"]) for line in curve)
  assert all(line["sampler_gap"] < 1e-3 for line in curve if "sampler_gap" in line)


def test_report_and_export_are_there(uninterrupted):
  assert "<html" in (uninterrupted / "report.html").read_text()
  for role in ("av", "ar"):
    assert (uninterrupted / "hf" / role / "nla_meta.yaml").exists()


def test_the_exported_pair_is_the_trained_pair(uninterrupted):
  import nla_jax

  run, exported = nla_jax.load(uninterrupted), nla_jax.load(uninterrupted / "hf", compute="float32")
  texts = ["Next: a, b", "anything else"]
  np.testing.assert_allclose(run.reconstruct(texts), exported.reconstruct(texts), rtol=1e-4, atol=1e-4)
  vectors = np.random.default_rng(0).normal(size=(3, 64))
  ours, theirs = run.explain(vectors, greedy=True), exported.explain(vectors, greedy=True)
  assert [one.text for one in ours] == [one.text for one in theirs]
  assert len(run.read("The licence grants rights.", positions=[-1, 10])) == 2


def test_an_exported_pair_is_trained_further(uninterrupted, shared):
  """`nla rl --config.init` begins where the pair ended, with its prompts, layer and scale, whatever the config says."""
  workdir = shared / "further"
  begin = [f"--config.init={uninterrupted / 'hf'}", "--config.prompts.av=Other {injection_char} words",
           "--config.layer=1"]
  for stage in ("extract", "teach", "rl"):
    done = subprocess.run(command(stage, workdir, *begin), env=environment(shared), capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
  config = json.loads((workdir / "config.json").read_text())
  assert config["layer"] == 2 and config["prompts"]["av"].startswith("Explain")
  curve = lambda folder: [json.loads(line) for line in (folder / "rl" / "metrics.jsonl").read_text().splitlines()]
  assert "kl" in curve(workdir)[-1] and len(curve(workdir)) == len(curve(uninterrupted))
  again = subprocess.run(command("rl", workdir, *begin, "--config.rl.group=3"), env=environment(shared),
                         capture_output=True, text=True, timeout=300)
  assert again.returncode == 2 and "rl.group (made with 4, asked for 3)" in again.stderr


def test_the_loop_runs_with_every_knob_turned(uninterrupted, shared):
  """Each knob's formula has its own test; here they work together in the loop, and the KL weight goes down."""
  workdir = shared / "knobs"
  shutil.copytree(uninterrupted, workdir, ignore=shutil.ignore_patterns("rl", "eval", "hf"))
  knobs = {"truncate": "true", "ar_ema": 0.5, "ar_gold": 0.25, "kl": "k1", "kl_target": 0.5, "importance_cap": 2.0,
           "clip_high": 0.3, "dual_clip": 3.0, "advantage": "rloo", "average": "token", "repeat_cost": 0.1, "epochs": 2,
           "minibatches": 2}
  done = subprocess.run(command("rl", workdir, *(f"--config.rl.{name}={value}" for name, value in knobs.items())),
                        env=environment(shared), capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-3000:]
  curve = [json.loads(line) for line in (workdir / "rl" / "metrics.jsonl").read_text().splitlines()]
  weights = [line["kl_weight"] for line in curve if "kl_weight" in line]
  assert len(curve) == 8 and weights[-1] < weights[0]
  assert all(np.isfinite(line["reward"]) and line["av_skipped"] == line["ar_skipped"] == 0 for line in curve)


def test_a_finished_run_is_skipped_and_another_request_is_refused(uninterrupted, shared):
  before = metrics(uninterrupted)
  again = subprocess.run(command("run", uninterrupted), env=environment(shared), capture_output=True, text=True,
                         timeout=300)
  assert again.returncode == 0 and again.stderr.count("already done") == 6, again.stderr[-2000:]
  assert metrics(uninterrupted) == before
  other = subprocess.run(command("run", uninterrupted, "--config.layer=1"), env=environment(shared),
                         capture_output=True, text=True, timeout=300)
  assert other.returncode == 2 and "layer (made with 2, asked for 1)" in other.stderr


@pytest.mark.parametrize("stage", ["extract", "sft ar", "sft av", "rl"])
def test_a_killed_run_that_is_started_again_gives_the_same_numbers_bit_for_bit(stage, uninterrupted, shared):
  workdir = shared / stage.replace(" ", "_")
  whole = lambda folder: (lambda: any(path.name.isdigit() for path in (workdir / folder / "checkpoints").glob("*")))
  ready = {
      "extract": lambda: len(list((workdir / "activations" / "store" / "shards").glob("*"))) >= 2,
      "sft ar": whole("sft/ar"),
      "sft av": whole("sft/av"),
      "rl": whole("rl"),
  }[stage]
  kill_when(ready, stage, workdir, environment(shared))
  resumed = subprocess.run(command("run", workdir), env=environment(shared), capture_output=True, text=True,
                           timeout=600)
  assert resumed.returncode == 0, resumed.stderr[-3000:]
  assert metrics(workdir) == metrics(uninterrupted)
  for name in ("sft/av", "sft/ar", "rl"):
    curve = lambda folder, name=name: [
        {key: value for key, value in json.loads(line).items() if not key.startswith("seconds")}
        for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    assert curve(workdir) == curve(uninterrupted)
