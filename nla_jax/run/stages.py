"""The way of the data, one function an arrow:

  corpus ─ extract ─▶ activations/ ─ teach ─▶ explanations/ ─ sft ─▶ sft/ ─ rl ─▶ rl/ ─ eval ─▶ eval/, report.html
         ─ export ─▶ hf/

Each reads one config and one workdir, writes its own folder and closes it with a manifest; what is done is skipped.
"""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nla_jax.autoencoder.fve import baseline_variance
from nla_jax.autoencoder.rows import encode_answers
from nla_jax.data import explanations, extraction
from nla_jax.data.loader import StoreRows
from nla_jax.data.teachers import file, readout
from nla_jax.errors import NLAError
from nla_jax.evaluation import harness
from nla_jax.interop.pairs.export import export_pair
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.parallel import distributed, sharding
from nla_jax.parallel.mesh import check_mesh, mesh_of
from nla_jax.progress import say, track
from nla_jax.run import report
from nla_jax.run.load import load_run
from nla_jax.run.run import Run
from nla_jax.run.stage import write_json
from nla_jax.run.warm_start import load_initial
from nla_jax.training import rl as rl_lib
from nla_jax.training import sft as sft_lib
from nla_jax.training.checkpoint import drop_checkpoints, load_params, save_params
from nla_jax.workdir import EXAMPLES, METRICS, ROWS, STAGES

_WATCHED_ROWS = 64  # held-out rows behind the points of the SFT curves


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
  rl_lib.check_settings(c.rl)
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


def _watched(run: Run) -> np.ndarray:
  rows = run.store.rows("held_out")
  return np.sort(np.random.default_rng(run.config.seed).permutation(rows)[:_WATCHED_ROWS])


def injection_scale(run: Run) -> float:
  """α: the config's, or the 75th percentile of the norms of all activations that are trained on."""
  store = run.store
  norms = store.read(
    "norm", np.concatenate([store.rows(split) for split in ("av_sft", "ar_sft", "rl")])
  )
  return run.config.inject.scale or float(np.quantile(norms, 0.75))


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
  """Measures the pair on held-out activations, beside controls, and writes the report."""
  stage = run.open("eval")
  if stage.done:
    return
  c = run.config
  result = harness.evaluate(
    load_run(run.workdir, run=run),
    run.store,
    texts=run.texts,
    before_rl=load_run(run.workdir, run=run, stage="sft"),
    rows=c.evaluation.rows,
    seed=c.seed,
    batch=c.evaluation.batch,
    bootstrap_samples=c.evaluation.bootstrap,
  )

  write_json(stage.path / METRICS, result.metrics)
  write_json(stage.path / EXAMPLES, result.examples(c.evaluation.examples))
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
