"""The pair that a run trained."""

from nla_jax import files, workdir
from nla_jax.autoencoder.magnitude import from_json
from nla_jax.autoencoder.nla import NLA
from nla_jax.bucket import Place, place
from nla_jax.config import load_config
from nla_jax.interop.pairs.load import load_target
from nla_jax.run.run import Run
from nla_jax.training.checkpoint import load_params


def load_run(
  folder: Place,
  *,
  stage: str = "rl",
  run: Run | None = None,
  chat_template: str = "",
  snapshot: int = 0,
) -> NLA:
  """The pair that a stage of a run made.

  Args:
    folder: the workdir.
    stage: `rl`, or `sft` for the pair before reinforcement learning.
    run: the run of this workdir, where it is open already.
    chat_template: in place of the one of its config, as `config.prompts.chat_template`.
    snapshot: of RL, the step after which its parameters were kept; 0 for the result.

  Raises:
    NLAError: the stage is not finished, or another version of nla_jax made the workdir.
  """
  folder = place(folder)
  if run is None:
    run = Run(load_config(folder / workdir.CONFIG), folder)
    run.config.prompts.chat_template = chat_template or run.config.prompts.chat_template
  pair = run.pair(run.supervised.injection_scale)

  # Before the evaluation the variance is not known, and explanations come without their FVE.
  metrics = files.read_json(run.path("eval") / workdir.METRICS)
  baseline = None if metrics is None else metrics["baseline_variance"]

  made = workdir.snapshot_of(run.path(stage), snapshot) if snapshot else run.path(stage)
  folders = (workdir.params_of(made, model) for model in ("av", "ar"))
  av, ar = (run.whole(load_params(folder)) for folder in folders)
  nla = NLA(pair, av, ar, run.config.model, baseline, load_target, run.config.model_adapter)
  if stage == "rl":
    # It was fitted to this AR's reconstructions of this AV's words.
    nla.magnitude = from_json(files.read_json(run.path("eval") / workdir.MAGNITUDE))
  return nla
