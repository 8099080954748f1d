"""Runs that are killed again and again, at random, end with the bytes of one that was left alone."""

import collections
import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from support.run_process import curve, finish, logs, start

from nla_jax.training.checkpoint import load_params
from nla_jax.workdir import (
  EXAMPLES,
  FOLDERS,
  MANIFEST,
  METRICS,
  REQUEST,
  ROWS,
  SAMPLES,
  STAGES,
  STORE,
  params_of,
)

KILLS = int(os.environ.get("NLA_TEST_KILLS", "40"))
OPTIONS = [
  "--config.checkpoint_every=2",
  "--config.av.steps=8",
  "--config.ar.steps=8",
  "--config.rl.steps=6",
  "--config.rl.ar_steps=1",
  "--config.rl.sample_every=1",
  "--config.data.shard_rows=8",
  "--config.data.chunk_rows=8",
  "--config.evaluation.rows=24",
]
KILLS_OF_A_RUN = 8  # its last stages would be hit by all of the rest
SHORT = 1.5  # seconds: about what the shortest stage takes
# Forty kills took half an hour of two cores that others used too.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(2 * 3600)]


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
  """A function of a workdir: `nla run` in it, with compiled programs shared by all workdirs."""
  compiled = tmp_path_factory.mktemp("compiled")

  def run(workdir: Path):
    cache = {
      "JAX_COMPILATION_CACHE_DIR": str(compiled),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return start(workdir, *OPTIONS, **cache)

  return run


def under_way(workdir: Path) -> str | None:
  """The stage that has begun and is not done; None between stages."""
  for stage in STAGES:
    folder = workdir / FOLDERS[stage]
    if (folder / REQUEST).exists() and not (folder / MANIFEST).exists():
      return stage
  return None


def kill_once(process, workdir: Path, draw: random.Random, spared: set[str]) -> str | None:
  """Kills a run shortly after a stage that is still to be done has begun; gives the stage that it hit, None where the
  run had ended before. `spared` are the stages that no kill has hit yet."""
  left = [stage for stage in STAGES if not (workdir / FOLDERS[stage] / MANIFEST).exists()]
  # The next stages are likelier: what is waited for is then done in between.
  aim = left[min(int(draw.expovariate(1.5)), len(left) - 1)] if left else None
  waits = draw.choice([SHORT, 4 * SHORT])
  # A stage may be over within a second: every other kill is at the beginning of one that was spared.
  if spared.intersection(left) and draw.random() < 0.5:
    aim, waits = next(stage for stage in left if stage in spared), 0.1
  while process.poll() is None and under_way(workdir) != aim:
    time.sleep(0.005)
  deadline = time.monotonic() + draw.uniform(0, waits)
  while process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.005)
  if process.poll() is not None:
    return None
  hit = under_way(workdir) or "between stages"
  process.kill()
  process.wait()
  return hit


def everything(workdir: Path) -> dict:
  """What a run leaves, without times: curves, samples, evaluation, and every array of the stages and the exports."""
  found = {f"{name} curve": curve(workdir / name) for name in ("sft/ar", "sft/av", "rl")}
  found["samples"] = (workdir / "rl" / SAMPLES).read_text()
  for name in (METRICS, ROWS, EXAMPLES):
    found[name] = json.loads((workdir / FOLDERS["eval"] / name).read_text())
  for stage in ("sft", "rl"):
    for model in ("av", "ar"):
      tree = load_params(params_of(workdir / stage, model))
      found[f"{stage} {model}"] = tree
  for path in sorted((workdir / FOLDERS["export"]).rglob("*.safetensors")):
    found[str(path.relative_to(workdir))] = safetensors.numpy.load_file(path)
  store = sorted(path for path in (workdir / STORE).rglob("*") if path.is_file())
  found["store"] = [str(path.relative_to(workdir)) for path in store]
  return found


def test_runs_killed_at_random_end_with_the_bytes_of_one_left_alone(begin, tmp_path):
  import jax

  alone = tmp_path / "alone"
  assert finish([begin(alone)], alone) == [0], logs(alone)
  expected = everything(alone)

  draw, hits, runs = random.Random(0), collections.Counter(), 0
  while hits.total() < KILLS:
    workdir = tmp_path / f"killed {runs}"
    runs += 1
    for _ in range(min(KILLS - hits.total(), KILLS_OF_A_RUN)):
      process = begin(workdir)
      hit = kill_once(process, workdir, draw, set(STAGES) - hits.keys())
      if hit is None:
        assert process.returncode == 0, logs(workdir)
        break
      hits[hit] += 1
    assert finish([begin(workdir)], workdir) == [0], logs(workdir)

    found = everything(workdir)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      jax.tree.map(np.testing.assert_array_equal, found[name], value)
    shutil.rmtree(workdir)
  print(f"{hits.total()} kills in {runs} runs: {dict(hits)}")
  if KILLS >= 40:
    assert set(STAGES) <= hits.keys(), hits
