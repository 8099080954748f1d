"""An installable package of the pair that a run has trained so far: adapters of AV and AR, in bfloat16.

  packages/NAME/pyproject.toml   NAME/__init__.py   NAME/{av,ar}/…   (`package:NAME` finds the last two)

The run may be half done: of each model the newest parameters are taken. The stages' folders are only read, so a run may
be at work there.
"""

from pathlib import Path
from typing import Any, NamedTuple

from nla_jax import files
from nla_jax.autoencoder.fve import baseline_variance
from nla_jax.autoencoder.nla import NLA
from nla_jax.config import load_config
from nla_jax.errors import NLAError
from nla_jax.interop.pairs.export import export_pair
from nla_jax.progress import say
from nla_jax.run.run import Run
from nla_jax.run.training_stages import injection_scale
from nla_jax.training.checkpoint import load_params, newest_arrays
from nla_jax.workdir import CHECKPOINTS, CONFIG, MANIFEST, METRICS, params_of

LIMIT_MB = 25  # of the files of AV and AR together, so that an index takes the wheel


class Found(NamedTuple):
  """The newest parameters of one model.

  Attributes:
    stage: `rl` or `sft`.
    where: the folder that they lie in.
    params: what was trained.
  """

  stage: str
  where: Path
  params: Any


def newest(run: Run, model: str) -> Found:
  """The newest parameters of `av` or `ar`: what RL ended with or holds, else what SFT did.

  Raises:
    NLAError: the run has not saved any.
  """
  for stage in ("rl", "sft"):
    done = params_of(run.path(stage), model)
    if done.exists():
      return Found(stage, done, load_params(done))

    # SFT saves each model by itself; RL both, and beside them the best that it has seen.
    folder = run.path(stage) / (CHECKPOINTS if stage == "rl" else f"{model}/{CHECKPOINTS}")
    state = newest_arrays(folder)
    if state is not None:
      params = state.get("best", {}).get(model) or state.get(model, state)["params"]
      return Found(stage, folder, params)
  raise NLAError(
    f"{run.workdir} holds no parameters of the {model.upper()} yet: package it after the first checkpoint of its SFT"
  )


def write_package(workdir: str | Path, package: str | Path) -> Path:
  """Writes `av` and `ar` into an importable folder, from a finished or half-finished run with adapters.

  Args:
    workdir: the run's.
    package: a folder with an `__init__.py`.

  Returns:
    The folder of the package.

  Raises:
    NLAError: there is no run, it trains whole weights, has saved nothing yet, or the files are larger than a wheel
      should be.
  """
  workdir, package = Path(files.here(workdir)), Path(files.here(package))
  # 1. What can be wrong is said before parameters are read.
  files.expect_file(workdir / CONFIG, "the workdir's config", "give a workdir of `nla run`")
  if not (package / "__init__.py").is_file():
    raise NLAError(f"{package} is no Python package: it has no __init__.py")
  run = Run(load_config(workdir / CONFIG), workdir)
  if run.lora is None:
    raise NLAError(
      f"{workdir} trains whole weights, which are too large for a package: train adapters with --config.lora.rank=16"
    )

  # 2. The pair, without its base, which a package does not hold.
  av, ar = (newest(run, model) for model in ("av", "ar"))
  for name, found in (("AV", av), ("AR", ar)):
    say(f"package: the {name} of {found.where}")
  done = (run.path("sft") / MANIFEST).is_file()
  pair = run.pair(run.supervised.injection_scale if done else injection_scale(run))

  # An evaluation is of the parameters that RL ended with, and of no others. FVE needs the variance alone.
  evaluated = run.path("eval") / METRICS
  metrics = files.read_json(evaluated) if av.where == params_of(run.path("rl"), "av") else None
  held_out = run.store.read("activations", run.store.rows("held_out"))
  nla = NLA(pair, av.params, ar.params, run.config.model, baseline_variance(held_out))

  # 3. Its files.
  export_pair(
    nla,
    package,
    base=run.config.model,
    stage="rl" if av.stage == "rl" else "sl",
    trained_on=run.config.corpus,
    metrics=metrics,
    dtype="bfloat16",
    adapted_base=run.pretrained,
  )
  _check_size(package)
  return package


def _check_size(package: Path) -> None:
  """Raises NLAError where AV and AR are larger than a package may be."""
  found = [path for role in ("av", "ar") for path in (package / role).rglob("*") if path.is_file()]
  size = sum(path.stat().st_size for path in found) / 1e6
  say(f"package: {package}, {size:.1f} MB")
  if size > LIMIT_MB:
    raise NLAError(
      f"{package} holds {size:.1f} MB of adapters, a package at most {LIMIT_MB}: train with a smaller "
      "--config.lora.rank"
    )
