"""The way of the data, one function an arrow:

  corpus ─ extract ─▶ activations/ ─ teach ─▶ explanations/ ─ sft ─▶ sft/ ─ rl ─▶ rl/ ─ eval ─▶ eval/, report.html
         ─ export ─▶ hf/

Each reads one config and one workdir, writes its own folder and closes it with a manifest; what is done is skipped.
"""

import functools
import time
from collections.abc import Callable

import numpy as np

from nla_jax import files
from nla_jax.autoencoder.fve import baseline_variance
from nla_jax.autoencoder.rows import encode_answers
from nla_jax.data import explanations, extraction
from nla_jax.data.loader import StoreRows
from nla_jax.data.scale import injection_scale as scale_of_store
from nla_jax.data.teachers import write
from nla_jax.evaluation import harness
from nla_jax.interop.pairs.export import export_pair
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.parallel import distributed, sharding
from nla_jax.parallel.mesh import mesh_of
from nla_jax.progress import say
from nla_jax.run import report
from nla_jax.run.checks import check
from nla_jax.run.load import load_run
from nla_jax.run.run import Run
from nla_jax.run.stage import write_json
from nla_jax.run.warm_start import load_initial
from nla_jax.training import rl as rl_lib
from nla_jax.training import sft as sft_lib
from nla_jax.training.checkpoint import drop_checkpoints, load_params, save_params
from nla_jax.workdir import MANIFEST, METRICS, REPORT, STAGES, STORE, TEXTS

_WATCHED_ROWS = 64  # held-out rows behind the points of the SFT curves


def extract(run: Run) -> None:
  """Activations of the corpus."""
  stage = run.open("extract")
  if stage.done:
    return

  path = str(run.workdir / STORE)
  facts = extraction.extract(run.config, run.pretrained, run.base_params, path, run.dtype)
  stage.finish(**facts)


def teach(run: Run) -> None:
  """An explanation of every activation, by the teacher."""
  stage = run.open("teach")
  if stage.done:
    return

  store = run.store
  texts = write.teach(store, run.pretrained.tokenizer, run.config.teacher)
  if distributed.is_first():
    explanations.write_explanations(str(run.workdir / TEXTS), np.arange(len(store)), texts)

  # How long the texts are decides what an answer must hold.
  tokens = run.pretrained.tokenizer(texts, add_special_tokens=False)["input_ids"]
  lengths = [len(ids) for ids in tokens]
  stage.finish(
    explanations=len(texts),
    tokens_mean=round(float(np.mean(lengths)), 1),
    tokens_max=int(max(lengths)),
  )


def _watched(run: Run) -> np.ndarray:
  rows = run.store.rows("held_out")
  return np.sort(np.random.default_rng(run.config.seed).permutation(rows)[:_WATCHED_ROWS])


def injection_scale(run: Run) -> float:
  """α: the config's where it names one, else what the norms of the store say."""
  return run.config.inject.scale or scale_of_store(run.store)


def sft(run: Run) -> None:
  """The AV learns to write the teacher's text from the vector, the AR to read it back; or both are `config.init`."""
  stage = run.open("sft")
  if stage.done:
    return
  c, store = run.config, run.store
  if c.init:
    nla = load_initial(c, run.pretrained)
    for name, params in (("av", nla.av_params), ("ar", nla.ar_params)):
      save_params(stage.path / name / "params", params)
    return stage.finish(injection_scale=nla.pair.verbalizer.scale, av_examples=0, ar_examples=0)
  scale = injection_scale(run)
  pair = run.pair(scale)
  watched = _watched(run)
  watched_vectors, watched_texts = (
    store.read("activations", watched),
    [run.texts[row] for row in watched.tolist()],
  )
  split = {
    name: np.array([row for row in store.rows(name).tolist() if row in run.texts])
    for name in ("av_sft", "ar_sft")
  }

  def fit(name: str, settings, params, loss, examples: StoreRows, watch: Callable):
    folder = stage.path / name
    if distributed.agree((folder / "params").exists()):
      return
    trained = sft_lib.fit(
      sft_lib.Run(
        f"sft {name}",
        folder,
        settings,
        c.seed,
        c.checkpoint_every,
        c.guard_limit,
        stage.note_progress,
      ),
      params,
      functools.partial(loss, pair=pair),
      examples,
      watch,
    )
    save_params(folder / "params", trained)
    drop_checkpoints(folder / "checkpoints")
    stage.note_progress()

  rows = split["ar_sft"]
  inputs = pair.encode([run.texts[row] for row in rows.tolist()])
  fit(
    "ar",
    c.ar,
    sharding.shard_params(reconstructor_params(run.base_params(c.layer), c.layer)),
    sft_lib.ar_loss,
    StoreRows(store, rows, columns={"tokens": inputs.tokens, "lengths": inputs.lengths}),
    sft_lib.watch_ar(pair, watched_vectors, watched_texts, baseline_variance(watched_vectors)),
  )
  rows = split["av_sft"]
  answers = encode_answers(run.prompts, pair.tokenizer, [run.texts[row] for row in rows.tolist()])
  d = pair.verbalizer.architecture.d_model
  fit(
    "av",
    c.av,
    sharding.shard_params(verbalizer_params(run.base_params(), d, c.inject.map)),
    sft_lib.av_loss,
    StoreRows(store, rows, columns={"tokens": answers.tokens, "mask": answers.mask}),
    sft_lib.watch_av(
      pair, watched_vectors, encode_answers(run.prompts, pair.tokenizer, watched_texts)
    ),
  )
  stage.finish(
    injection_scale=scale, av_examples=c.av.steps * c.av.batch, ar_examples=c.ar.steps * c.ar.batch
  )


def rl(run: Run) -> None:
  """The AV is rewarded for what the AR can rebuild; both learn."""
  stage = run.open("rl")
  if stage.done:
    return
  c, store = run.config, run.store
  pair = run.pair(run.parent("sft").facts["injection_scale"])
  rows, gold = store.rows("rl"), None
  if c.rl.ar_teacher:
    taught = np.array([row for row in store.rows("ar_sft").tolist() if row in run.texts])
    inputs = pair.encode([run.texts[row] for row in taught.tolist()])
    gold = StoreRows(store, taught, columns={"tokens": inputs.tokens, "lengths": inputs.lengths})
  before = {name: load_params(run.path("sft") / name / "params") for name in ("av", "ar")}
  trained = rl_lib.train(
    pair,
    c.rl,
    before["av"],
    before["ar"],
    StoreRows(store, rows),
    run.context,
    baseline_variance(store.read("activations", rows)),
    gold=gold,
    folder=stage.path,
    seed=c.seed,
    checkpoint_every=c.checkpoint_every,
    guard_limit=c.guard_limit,
    note_progress=stage.note_progress,
  )
  for name, params in trained.items():
    save_params(stage.path / name / "params", params)
  drop_checkpoints(stage.path / "checkpoints")
  stage.finish(samples=c.rl.steps * c.rl.activations * c.rl.group)


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

  # The card quotes the numbers of the evaluation, with their intervals.
  export_pair(
    load_run(run.workdir, run=run),
    stage.path,
    base=run.config.model,
    stage="rl",
    trained_on=run.config.corpus,
    metrics=files.read_json(run.path("eval") / METRICS),
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
