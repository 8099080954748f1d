"""The way of the data, one function an arrow:

  corpus ─ extract ─▶ activations/ ─ teach ─▶ explanations/ ─ sft ─▶ sft/ ─ rl ─▶ rl/ ─ eval ─▶ eval/, report.html
         ─ export ─▶ hf/

Each reads one config and one workdir, writes its own folder and closes it with a manifest; what is done is skipped.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nla_jax import files
from nla_jax.bucket import Place, send
from nla_jax.data import explanations, extraction
from nla_jax.data.teachers import write
from nla_jax.data.teachers.check import check_texts
from nla_jax.evaluation import harness
from nla_jax.evaluation.sizing import with_magnitude
from nla_jax.interop.pairs.export import export_pair
from nla_jax.parallel import distributed
from nla_jax.parallel.mesh import mesh_of
from nla_jax.progress import say
from nla_jax.run import questions, report
from nla_jax.run.asking import answering
from nla_jax.run.checks import check
from nla_jax.run.load import load_run
from nla_jax.run.run import Run
from nla_jax.run.stage import Stage, write_json
from nla_jax.run.training_stages import rl, sft
from nla_jax.workdir import (
  EXAMPLES,
  MAGNITUDE,
  MANIFEST,
  METRICS,
  REPORT,
  ROWS,
  STAGES,
  STORE,
  TEXTS,
  TOKENS,
)


def extract(run: Run) -> None:
  """Activations of the corpus."""
  stage = run.open("extract")
  if stage.done:
    return

  path, tokens = str(run.workdir / STORE), str(stage.path / TOKENS)
  facts = extraction.extract(run.config, run.target, run.target_params, path, tokens, run.dtype)
  stage.finish(**facts)


def teach(run: Run) -> None:
  """An explanation of every activation, by the teacher."""
  stage = run.open("teach")
  if stage.done:
    return

  store = run.store
  with answering(run, stage.path) as asked:
    found = write.teach(store, run.pretrained.tokenizer, run.config.teacher, asked)
  # Before the stage is closed, so that a corrected file is read again.
  if not run.config.init:
    check_texts(found, run.pair(1.0), store)
  texts = list(found.values())
  if distributed.is_first():
    explanations.write_explanations(str(run.workdir / TEXTS), np.array(list(found)), texts)

  # How long the texts are decides what an answer must hold.
  tokens = run.pretrained.tokenizer(texts, add_special_tokens=False)["input_ids"]
  lengths = [len(ids) for ids in tokens]
  stage.finish(
    explanations=len(texts),
    tokens_mean=round(float(np.mean(lengths)), 1),
    tokens_max=int(max(lengths)),
  )


def evaluate(run: Run) -> None:
  """Measures the pair on held-out activations, beside controls, and writes the report; then what suites were named."""
  wanted = questions.names(run.config)  # a wrong name costs nothing
  stage = run.open("eval")
  if not stage.done:
    _evaluate(run, stage)
  if wanted:
    questions.answer(run, stage, wanted)


def _evaluate(run: Run, stage: Stage) -> None:
  subject = with_magnitude(questions.draw(run), run.config.evaluation.magnitude_rows)
  if subject.nla.magnitude is not None and distributed.is_first():
    files.write_json(stage.path / MAGNITUDE, subject.nla.magnitude.to_json())
  result = harness.measure(subject)
  write_json(stage.path / METRICS, result.metrics)
  write_json(stage.path / EXAMPLES, result.examples(run.config.evaluation.examples))
  write_json(stage.path / ROWS, result.per_row())
  # Closed when all is written: an evaluation that was stopped before begins anew.
  stage.finish(rows=len(result.rows))
  say(harness.table(result.metrics))
  report.write_run_report(run)


def export(run: Run) -> None:
  """The pair as Hugging Face directories with sidecars."""
  stage = run.open("export")
  if stage.done:
    return

  with _local(stage.path) as folder:
    _export_to(run, folder)
  stage.finish()


@contextlib.contextmanager
def _local(folder: Place) -> Iterator[Path]:
  """A folder of this machine to write into: itself, or what is sent to a bucket afterwards."""
  if isinstance(folder, Path):
    yield folder
    return

  with tempfile.TemporaryDirectory(prefix="nla_jax") as scratch:
    yield Path(scratch)
    if distributed.is_first():
      with files.writing(folder):
        send(Path(scratch), folder)


def _export_to(run: Run, folder: Path) -> None:
  # The card quotes the numbers of the evaluation, with their intervals.
  export_pair(
    load_run(run.workdir, run=run),
    folder,
    base=run.config.model,
    stage="rl",
    trained_on=run.config.corpus,
    metrics=files.read_json(run.path("eval") / METRICS),
    dtype=run.config.export_dtype,
    adapted_base=run.pretrained if run.config.export_form == "adapter" else None,
  )


FUNCTIONS = {
  "extract": extract,
  "teach": teach,
  "sft": sft,
  "rl": rl,
  "eval": evaluate,
  "export": export,
}


def run_all(run: Run) -> None:
  """`nla run`: every stage, then where the time went and what came of it."""
  run_stages(run, STAGES)

  # Once more: the report was written at the evaluation, before the export's time was known.
  report.write_run_report(run)
  rows = report.timing(run)
  stages = ", ".join(f"{row['stage']} {row['seconds']:.0f} s" for row in rows)
  minutes = sum(row["seconds"] for row in rows) / 60
  say(f"where the time went: {stages}; in all {minutes:.1f} min")
  say(harness.table(files.read_json(run.path("eval") / METRICS)))
  say(f"report: {run.workdir / REPORT}   exported: {run.path('export')}")


def run_stages(run: Run, names: tuple[str, ...]) -> None:
  """Runs stages in the order of their names here; each skips itself when it is done.

  Raises:
    NLAError: the processes of this run differ, the config cannot work, or a stage fails in a way that can be mended.
  """
  # 1. All processes run the same code on the same config; otherwise they would wait for each other for ever.
  distributed.check_same("config", run.config.to_json())
  distributed.check_same("version of nla_jax and jax", distributed.code_version())

  # 2. What can be known beforehand, then the stages. Both need the mesh, which decides what divides.
  with mesh_of(run.config.mesh):
    check(run)
    distributed.check_same("tokens of the prompts", json.dumps(run.prompts.ids))
    for name in names:
      _run_stage(run, name)


def _run_stage(run: Run, name: str) -> None:
  begun = time.time()
  # Asked before, since a stage that is made says nothing about what it found.
  done_before = files.exists(run.path(name) / MANIFEST)
  FUNCTIONS[name](run)

  if done_before:
    say(f"{name}: already done, {run.path(name)}")
  else:
    say(f"{name}: done in {time.time() - begun:.0f} s")
