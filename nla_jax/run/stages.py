"""The way of the data, one function an arrow:

  corpus ─ extract ─▶ activations/ ─ teach ─▶ explanations/ ─ sft ─▶ sft/ ─ rl ─▶ rl/ ─ eval ─▶ eval/, report.html
         ─ export ─▶ hf/

Each reads one config and one workdir, writes its own folder and closes it with a manifest; what is done is skipped.
"""

import json
import time
from pathlib import Path

import numpy as np

from nla_jax.data import explanations, extraction
from nla_jax.data.teachers import file, readout
from nla_jax.errors import NLAError
from nla_jax.evaluation import harness
from nla_jax.interop.pairs.export import export_pair
from nla_jax.parallel import distributed
from nla_jax.parallel.mesh import check_mesh, mesh_of
from nla_jax.progress import say, track
from nla_jax.run import report
from nla_jax.run.load import load_run
from nla_jax.run.run import Run
from nla_jax.run.stage import write_json
from nla_jax.run.training_stages import rl, sft
from nla_jax.training.settings import check_settings
from nla_jax.workdir import STAGES


def check(run: Run) -> None:
  """What can be known before the first expensive step. Raises NLAError."""
  c = run.config
  if not c.model or not c.corpus:
    raise NLAError(
      "the config names no model or no corpus: give --config.model=… and --config.corpus=…"
    )
  for name in ("av", "ar"):
    if c[name].accumulate < 1 or c[name].batch % c[name].accumulate:
      raise NLAError(
        f"config.{name}.accumulate={c[name].accumulate} does not divide config.{name}.batch={c[name].batch}"
      )
  check_settings(c.rl)
  if c.teacher.provider not in ("readout", "file"):
    raise NLAError(f"config.teacher.provider={c.teacher.provider!r}: expected readout or file")
  if c.teacher.provider == "readout" and c.data.next_tokens < c.teacher.next_tokens:
    raise NLAError(
      f"the readout teacher names {c.teacher.next_tokens} next tokens and extraction keeps "
      f"{c.data.next_tokens}; raise --config.data.next_tokens"
    )
  if c.teacher.provider == "file" and not Path(c.teacher.path).is_file():
    raise NLAError(
      f"the teacher's file {c.teacher.path!r} does not exist; check --config.teacher.path"
    )
  layers, positions = (
    run.pretrained.architecture.n_layers,
    run.pretrained.architecture.max_positions,
  )
  if not 0 <= c.layer < layers:
    raise NLAError(f"config.layer={c.layer}: {c.model} has blocks 0..{layers - 1}")
  around = len(run.prompts.answer_ids(run.pretrained.tokenizer, ""))
  if c.rl.max_new_tokens < c.teacher.max_tokens + around:
    raise NLAError(
      f"config.rl.max_new_tokens={c.rl.max_new_tokens} cannot hold the teacher's explanations: "
      f"{c.teacher.max_tokens} tokens and {around} around them; raise it or lower "
      "--config.teacher.max_tokens"
    )
  prompt = len(run.prompts.before) + len(run.prompts.after)
  if prompt + c.rl.max_new_tokens > positions:
    raise NLAError(
      f"config.rl.max_new_tokens={c.rl.max_new_tokens} and the AV's prompt of {prompt} tokens are more "
      f"than the {positions} positions that {c.model} was made for; lower it"
    )
  if c.data.max_tokens > positions:
    raise NLAError(
      f"config.data.max_tokens={c.data.max_tokens}: {c.model} was made for {positions} positions; lower "
      "it"
    )
  check_mesh(run.pretrained.architecture, c)
  run.pair(1.0)
  run.dtype  # noqa: B018 - raises on an unknown setting


def extract(run: Run) -> None:
  """Activations of the corpus."""
  stage = run.open("extract")
  if stage.done:
    return
  stage.finish(
    **extraction.extract(
      run.config, run.pretrained, run.base_params, str(stage.path / "store"), run.dtype
    )
  )


def teach(run: Run) -> None:
  """An explanation of every activation, by the teacher."""
  stage = run.open("teach")
  if stage.done:
    return
  settings, store = run.config.teacher, run.store
  document, position = store.read("document", slice(None)), store.read("position", slice(None))
  documents = [store.documents[i] for i in range(len(store.documents))]
  if settings.provider == "file":
    keys = [(documents[i].id, int(p)) for i, p in zip(document, position)]
    texts = file.match_rows(file.read_teacher_file(settings.path), keys, settings.path)
  else:
    tokenizer = run.pretrained.tokenizer
    groups: dict[str, list[str]] = {}
    for one in documents:
      groups.setdefault(one.group, []).append(
        tokenizer.decode(one.tokens, skip_special_tokens=True)
      )
    topics = readout.TopicWords(["\n".join(texts) for texts in groups.values()])
    following = store.read("next_tokens", slice(None))
    texts = [
      readout.readout(tokenizer, documents[i].tokens[: p + 1], following[row], topics, settings)
      for row, (i, p) in enumerate(track(zip(document, position), "teach", "row", total=len(store)))
    ]
  if distributed.is_first():
    explanations.write_explanations(str(stage.path / "texts"), np.arange(len(store)), texts)
  lengths = [
    len(ids) for ids in run.pretrained.tokenizer(texts, add_special_tokens=False)["input_ids"]
  ]
  stage.finish(
    explanations=len(texts),
    tokens_mean=round(float(np.mean(lengths)), 1),
    tokens_max=int(max(lengths)),
  )


def evaluate(run: Run) -> None:
  """Held-out numbers with controls, metrics.json and report.html."""
  stage = run.open("eval")
  if stage.done:
    return
  c = run.config
  nla = load_run(run.workdir, run=run)
  before = load_run(run.workdir, run=run, stage="sft")
  result = harness.evaluate(
    nla,
    run.store,
    texts=run.texts,
    before_rl=before,
    rows=c.evaluation.rows,
    seed=c.seed,
    batch=c.evaluation.batch,
    bootstrap_samples=c.evaluation.bootstrap,
  )
  write_json(stage.path / "metrics.json", result.metrics)
  stage.finish(rows=len(result.rows))
  write_json(stage.path / "examples.json", result.examples(c.evaluation.examples))
  write_json(stage.path / "rows.json", result.per_row())
  say(harness.table(result.metrics))
  report.write_run_report(run)


def export(run: Run) -> None:
  """The pair as Hugging Face directories with sidecars."""
  stage = run.open("export")
  if stage.done:
    return
  nla = load_run(run.workdir, run=run)
  export_pair(
    nla,
    stage.path,
    base=run.config.model,
    stage="rl",
    trained_on=run.config.corpus,
    metrics=json.loads((run.path("eval") / "metrics.json").read_text()),
    dtype=run.config.export_dtype,
  )
  stage.finish()


FUNCTIONS = {
  "extract": extract,
  "teach": teach,
  "sft": sft,
  "rl": rl,
  "eval": evaluate,
  "export": export,
}


def run_stages(run: Run, names: tuple[str, ...]) -> None:
  """Runs stages in order; each skips itself when it is done."""
  distributed.check_same("config", run.config.to_json())
  distributed.check_same("version of nla_jax and jax", distributed.code_version())
  with mesh_of(run.config.mesh):
    check(run)
    _run_stages(run, names)


def _run_stages(run: Run, names: tuple[str, ...]) -> None:
  for name in names:
    begun = time.time()
    done_before = (run.path(name) / "manifest.json").exists()
    FUNCTIONS[name](run)
    say(
      f"{name}: already done, {run.path(name)}"
      if done_before
      else f"{name}: done in {time.time() - begun:.0f} s"
    )


def run_all(run: Run) -> None:
  """`nla run`: every stage, then where the time went."""
  run_stages(run, STAGES)
  report.write_run_report(run)
  rows = report.timing(run)
  say(
    "where the time went: "
    + ", ".join(f"{row['stage']} {row['seconds']:.0f} s" for row in rows)
    + f"; in all {sum(row['seconds'] for row in rows) / 60:.1f} min"
  )
  say(harness.table(json.loads((run.path("eval") / "metrics.json").read_text())))
  say(f"report: {run.workdir / 'report.html'}   exported: {run.path('export')}")
