"""Suites that answer a question about a run's pair: beside its evaluation, and as often as others are asked for."""

from ml_collections import ConfigDict

from nla_jax import files, quantities
from nla_jax.autoencoder.nla import NLA
from nla_jax.evaluation import findings, harness, ladder
from nla_jax.evaluation.kept import Kept
from nla_jax.evaluation.settings import Settings
from nla_jax.evaluation.subject import Subject, draw_subject
from nla_jax.evaluation.suite import QUESTIONS, suite_names
from nla_jax.progress import say
from nla_jax.run import report
from nla_jax.run.load import load_run
from nla_jax.run.run import Run
from nla_jax.run.stage import Stage, write_json
from nla_jax.workdir import FITS, METRICS, SUITES


def names(config: ConfigDict) -> list[str]:
  """The suites that the config names, but for those that every evaluation runs.

  Raises:
    NLAError: there is no suite of that name, or no such preset.
  """
  wanted = [name.strip() for name in config.suites.names.split(",") if name.strip()]
  Settings(preset=config.suites.preset)  # refuses what is none
  suite_names(wanted)
  return [name for name in QUESTIONS if name in wanted]


def draw(run: Run) -> Subject:
  """What the run's evaluation looks at."""
  nla, before = load_run(run.workdir, run=run), load_run(run.workdir, run=run, stage="sft")
  return draw_of(run, nla, before)


def draw_of(run: Run, nla: NLA, before_rl: NLA | None, **other) -> Subject:
  """The same of any pair of the run; `other` settings than the config's."""
  c = run.config
  settings = {
    "rows": c.evaluation.rows,
    "seed": c.seed,
    "batch": c.evaluation.batch,
    "bootstrap_samples": c.evaluation.bootstrap,
    "best_of": c.evaluation.best_of,
    "best_of_rows": c.evaluation.best_of_rows,
    "preset": c.suites.preset,
    "judge": c.suites.judge,
    "sae": c.suites.sae,
  }
  folder = run.path("eval") / FITS
  return draw_subject(
    nla, run.store, texts=run.texts, before_rl=before_rl, folder=folder, **(settings | other)
  )


def answer(run: Run, stage: Stage, wanted: list[str]) -> None:
  """Runs suites on a finished evaluation, and adds what they found to its numbers and to the report.

  What is finished is kept, so that a run that was stopped goes on with the suite that it had begun.

  Raises:
    PreemptedError: the machine is about to be taken away.
  """
  kept = Kept(
    stage.path / SUITES,
    {
      "evaluation": stage.digest,
      "preset": run.config.suites.preset,
      "judge": run.config.suites.judge,
      # Named only where it is set: findings of before there was this key stay.
      **({"sae": run.config.suites.sae} if run.config.suites.sae else {}),
    },
  )
  found, left_out = harness.answer(draw(run), wanted, kept)

  # Beside what earlier calls found; a suite that could be run now is no longer left out.
  metrics = files.read_json(stage.path / METRICS)
  held = metrics.get(quantities.SUITES, {}) | {
    name: findings.to_json(one) for name, one in found.items()
  }
  missing = {**metrics.get(quantities.LEFT_OUT, {}), **left_out}
  metrics[quantities.SUITES] = {name: held[name] for name in QUESTIONS if name in held}
  metrics[quantities.LADDER] = ladder.of_suites(metrics[quantities.SUITES])
  metrics[quantities.LEFT_OUT] = {name: why for name, why in missing.items() if name not in found}
  write_json(stage.path / METRICS, metrics)

  for name, finding in found.items():
    say("\n".join(findings.lines(name, finding)))
  report.write_run_report(run)
