"""`nla eval --over_training`: every kept step of RL through the suites, against how well explanations rebuild.

The steps are SFT's result (0), the snapshots of RL, and its result. Baselines do not change from step to step, so they
are read once, with the last. What is finished is kept: a command that was stopped goes on with the suite it had begun.
"""

from typing import Any

from nla_jax import files, quantities
from nla_jax.autoencoder.nla import NLA
from nla_jax.bucket import Place
from nla_jax.errors import NLAError
from nla_jax.evaluation import harness
from nla_jax.evaluation.kept import Kept
from nla_jax.progress import say
from nla_jax.run import questions, report
from nla_jax.run.load import load_run
from nla_jax.run.run import Run
from nla_jax.run.stage import Stage, write_json
from nla_jax.workdir import OVER_TRAINING, SNAPSHOTS, params_of, snapshot_of

SUITES = ("suffix_prediction", "classification", "user_modelling", "hints", "sandbagging")
_PRESET, _ROWS = "quick", 200  # of each step; held-out activations of its FVE
MODELS = ("av", "ar")


def evaluate(run: Run) -> None:
  """Measures each step, and writes the report with a chart for each suite.

  The suites are those that the config names, or the five of what explanations say.

  Raises:
    NLAError: the evaluation itself is not finished, or RL kept no step.
    PreemptedError: the machine is about to be taken away.
  """
  wanted = questions.names(run.config) or list(SUITES)
  stage = run.parent("eval")
  kept_steps = snapshots(run.path("rl"))
  if not kept_steps:
    raise NLAError(
      f"RL kept no step in {run.path('rl') / SNAPSHOTS}: set config.snapshot_every before `nla rl` to see what changes"
    )

  steps = [0, *kept_steps, run.config.rl.steps]
  for step in steps:
    last = step == steps[-1]
    origin = _origin(run, stage, step, last)
    file = stage.path / OVER_TRAINING / f"{step:06d}.json"
    held = files.read_json(file)
    if _has_all(held, origin, wanted):
      say(f"eval: step {step} is measured already")
      continue
    say(f"eval: step {step} of {steps[-1]}")
    write_json(
      file, {"made_from": origin, "step": step, **_measured(run, step, last, file, wanted)}
    )
  report.write_run_report(run)


def snapshots(folder: Place) -> list[int]:
  """The steps of RL whose parameters were kept whole, ascending; `folder` is of the stage."""
  kept = folder / SNAPSHOTS
  if not kept.exists():
    return []
  steps = sorted(int(one.name) for one in kept.iterdir() if one.name.isdigit())
  # A run that was stopped between its two models makes that step again.
  return [
    step
    for step in steps
    if all(params_of(snapshot_of(folder, step), name).exists() for name in MODELS)
  ]


def _measured(run: Run, step: int, last: bool, file: Place, wanted: list[str]) -> dict[str, Any]:
  """The FVE of one step, and its findings."""
  subject = questions.draw_of(
    run,
    _pair(run, step),
    None,
    rows=min(run.config.evaluation.rows, _ROWS),
    preset=_PRESET,
    best_of=0,
    baselines=last,
  )
  kept = Kept(
    file.parent / file.name.removesuffix(".json"), _origin(run, run.parent("eval"), step, last)
  )
  metrics = harness.measure(subject, wanted, kept=kept).metrics
  found = quantities.find(metrics, quantities.HEADLINE)
  parts = (quantities.SUITES, quantities.LEFT_OUT)
  headline = {"value": found.value, "ci95": found.ci95}
  return {"fve": headline, **{name: metrics.get(name, {}) for name in parts}}


def _pair(run: Run, step: int) -> NLA:
  if step == 0:
    return load_run(run.workdir, run=run, stage="sft")
  snapshot = 0 if step == run.config.rl.steps else step
  return load_run(run.workdir, run=run, snapshot=snapshot)


def _origin(run: Run, stage: Stage, step: int, last: bool) -> dict[str, Any]:
  """What a step's findings are made from."""
  c = run.config.suites
  settings = {"judge": c.judge, "sae": c.sae if last else "", "preset": _PRESET}
  return {"evaluation": stage.digest, "step": step, "last": last, **settings}


def _has_all(held: Any, origin: dict[str, Any], wanted: list[str]) -> bool:
  """Whether a file holds what is asked for."""
  if not held or held.get("made_from") != origin:
    return False
  answered = {**held[quantities.SUITES], **held[quantities.LEFT_OUT]}
  return set(wanted) <= answered.keys()
