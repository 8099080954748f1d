"""The pair that a run trained."""

import json
from pathlib import Path

from nla_jax import workdir
from nla_jax.autoencoder.nla import NLA
from nla_jax.config import load_config
from nla_jax.interop.pairs.load import load_target
from nla_jax.run.run import Run
from nla_jax.training.checkpoint import load_params


def load_run(folder: Path, *, stage: str = "rl", run: Run | None = None) -> NLA:
  """The pair of a run's stage (`rl`, or `sft` for the pair before it)."""
  folder = Path(folder)
  if run is None:
    run = Run(load_config(folder / workdir.CONFIG), folder)
  pair = run.pair(run.parent("sft").facts["injection_scale"])
  metrics = run.path("eval") / workdir.METRICS
  baseline = json.loads(metrics.read_text())["baseline_variance"] if metrics.exists() else None
  av, ar = (load_params(workdir.params_of(run.path(stage), model)) for model in ("av", "ar"))
  return NLA(pair, av, ar, run.config.model, baseline, load_target)
