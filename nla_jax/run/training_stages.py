"""The two stages that train: `sft`, in which both models learn from the teacher's text, and `rl`."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nla_jax.autoencoder.fve import baseline_variance
from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.rows import encode_answers
from nla_jax.bucket import Place
from nla_jax.data import scale
from nla_jax.data.loader import StoreRows
from nla_jax.data.store.store import Store
from nla_jax.data.teachers.check import check_texts
from nla_jax.models.lora import adapter_params
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.parallel import distributed, sharding
from nla_jax.progress import say
from nla_jax.run import pressures
from nla_jax.run.passes import described
from nla_jax.run.run import Run
from nla_jax.run.stage import Stage, write_json
from nla_jax.run.warm_start import load_initial
from nla_jax.training import rl as rl_lib
from nla_jax.training import sft as sft_lib
from nla_jax.training.checkpoint import drop_checkpoints, load_params, save_params
from nla_jax.training.loop import Session
from nla_jax.workdir import CHECKPOINTS, PROMPTS, params_of, snapshot_of

_WATCHED_ROWS = 64  # held-out rows behind the points of the SFT curves


def injection_scale(run: Run) -> float:
  """α: the config's where it names one, else what the norms of the store say."""
  return run.config.inject.scale or scale.injection_scale(run.store)


def sft(run: Run) -> None:
  """Trains the AV to write the teacher's text from the activation and the AR to read it back.

  With `config.init` nothing is trained: the stage's result is that pair.
  """
  stage = run.open("sft")
  if stage.done:
    return
  if run.config.init:
    _take_initial(run, stage)
    return

  # A run that is stopped here goes on with these ids, or says that they have become others.
  write_json(stage.path / PROMPTS, run.prompts.ids)

  # Each model is saved as soon as it is trained, so that a run that is stopped later does not train it again.
  alpha = injection_scale(run)
  pair = run.pair(alpha)
  # Once more: the prompts and the cap may be others than when the texts were written, or the store was converted.
  check_texts(run.texts, pair, run.store)

  # How often each row is seen decides what is learned, and nobody works it out from steps and batches.
  rows = {name: len(_explained_rows(run, f"{name}_sft")) for name in ("ar", "av")}
  seen = {name: run.config[name].steps * run.config[name].batch for name in rows}
  for name in rows:
    say(f"sft {name}: {described(seen[name], rows[name])}")
  for name, fit in (("ar", _fit_ar), ("av", _fit_av)):
    if not distributed.agree(params_of(stage.path, name).exists()):
      save_params(params_of(stage.path, name), fit(run, stage, pair))
      drop_checkpoints(stage.path / name / CHECKPOINTS)
      stage.note_progress()

  stage.finish(
    injection_scale=alpha,
    prompt_ids=run.prompts.ids,
    av_examples=seen["av"],
    ar_examples=seen["ar"],
    av_rows=rows["av"],
    ar_rows=rows["ar"],
  )


def _take_initial(run: Run, stage: Stage) -> None:
  """The pair `config.init` in place of what SFT would make."""
  nla = load_initial(run.config, run.pretrained)
  save_params(params_of(stage.path, "av"), nla.av_params)
  save_params(params_of(stage.path, "ar"), nla.ar_params)
  stage.finish(
    injection_scale=nla.pair.verbalizer.scale,
    prompt_ids=run.prompts.ids,
    av_examples=0,
    ar_examples=0,
  )


def _fit_ar(run: Run, stage: Stage, pair: Pair) -> Any:
  """The AR's parameters after SFT; it starts as the lower blocks of the base model."""
  # 1. What it learns from, and what is watched meanwhile.
  examples = _teacher_text(run, pair)
  vectors, texts = _watched(run)
  watch = sft_lib.watch_ar(pair, vectors, texts, baseline_variance(vectors))

  # 2. Where it starts. It is loaded last and donated: the train state takes its memory.
  layer, adapters = run.config.layer, _fresh_adapters(run, pair.reconstructor)
  base = run.base_params(layer) if adapters is None else run.frozen_base
  return sft_lib.fit(
    _session(run, stage, "sft ar", stage.path / "ar"),
    run.config.ar,
    sharding.shard_params(reconstructor_params(base, layer, adapters)),
    functools.partial(sft_lib.ar_loss, pair=pair),
    examples,
    watch,
  )


def _fit_av(run: Run, stage: Stage, pair: Pair) -> Any:
  """The AV's parameters after SFT; it starts as the base model, with the map of the injection beside it."""
  # 1. What it learns from, and what is watched meanwhile.
  rows = _explained_rows(run, "av_sft")
  answers = encode_answers(run.prompts, pair.tokenizer, [run.texts[row] for row in rows.tolist()])
  examples = StoreRows(run.store, rows, columns={"tokens": answers.tokens, "mask": answers.mask})
  vectors, texts = _watched(run)
  watch = sft_lib.watch_av(pair, vectors, encode_answers(run.prompts, pair.tokenizer, texts))

  # 2. Where it starts; loaded last and donated, as well.
  d_model, injection_map = pair.verbalizer.architecture.d_model, run.config.inject.map
  adapters = _fresh_adapters(run, pair.verbalizer)
  base = run.base_params() if adapters is None else run.frozen_base
  return sft_lib.fit(
    _session(run, stage, "sft av", stage.path / "av"),
    run.config.av,
    sharding.shard_params(verbalizer_params(base, d_model, injection_map, adapters)),
    functools.partial(sft_lib.av_loss, pair=pair),
    examples,
    watch,
  )


def _fresh_adapters(run: Run, model) -> dict | None:
  """Adapters of the AV or the AR before training; None where all of it is trained."""
  if model.lora is None:
    return None
  return adapter_params(model.architecture, model.lora, jax.random.key(run.config.seed))


def rl(run: Run) -> None:
  """Rewards the AV for what the AR can rebuild; both learn."""
  stage = run.open("rl")
  if stage.done:
    return

  # 1. Training, from the pair that SFT made.
  settings = run.config.rl
  pair = run.pair(run.supervised.injection_scale)
  if settings.ar_teacher:
    check_texts(run.texts, pair, run.store)
  examples = rl_examples(run, pair)
  rows = len(examples.activations)
  seen = _activations_seen(settings)
  say(f"rl: {described(seen, rows)}")
  if rows < settings.activations:
    say(f"rl: a step explains {settings.activations} activations, some of the {rows} several times")
  session = dataclasses.replace(
    _session(run, stage, "rl", stage.path),
    keep=1,
    snapshot_every=run.config.snapshot_every,
    snapshot=functools.partial(_save_snapshot, stage.path),
  )
  trained = rl_lib.train(pair, settings, rl_start(run), examples, session)

  # 2. The result. Checkpoints go last: until then a stopped stage still has them.
  for name, params in trained.items():
    save_params(params_of(stage.path, name), params)
  drop_checkpoints(stage.path / CHECKPOINTS)
  samples = settings.steps * settings.activations * settings.group
  stage.finish(samples=samples, activations=seen, rows=rows)


def _save_snapshot(folder: Place, step: int, params: dict) -> None:
  """Keeps the parameters of both models after a step."""
  for name, one in params.items():
    save_params(params_of(snapshot_of(folder, step), name), one)


def _activations_seen(settings) -> int:
  """Activations that RL explains: one a group, and where the AR learns alone one an explanation."""
  alone = min(settings.ar_steps, settings.steps)
  return settings.activations * (settings.steps - alone + alone * settings.group)


def rl_examples(run: Run, pair: Pair) -> rl_lib.Examples:
  """What RL learns from: its own split, and the AR's text where a share of its batches is the teacher's."""
  settings, store = run.config.rl, run.store
  rows = store.rows("rl")
  held_out = len(store.rows("held_out")) if settings.watch_every else settings.watch_rows
  if held_out < settings.watch_rows:
    say(
      f"rl: {held_out} activations are held out, fewer than config.rl.watch_rows={settings.watch_rows}"
    )
  return rl_lib.Examples(
    StoreRows(store, rows),
    run.context,
    baseline_variance(store.read("activations", rows)),
    _teacher_text(run, pair) if settings.ar_teacher else None,
    unevaluated(store, run.config.seed, settings.watch_rows) if settings.watch_every else None,
    pressures.rewording(settings),
    pressures.false_shares(run) if settings.false_claim_cost else None,
  )


def rl_start(run: Run) -> rl_lib.Start:
  """The pair that SFT made, read anew: the caller may donate it."""
  folders = (params_of(run.path("sft"), name) for name in ("av", "ar"))
  return rl_lib.Start(*(run.whole(load_params(folder)) for folder in folders))


def _session(run: Run, stage: Stage, name: str, folder: Path) -> Session:
  c = run.config
  seed = c.seed + (c.rl.seed if name == "rl" else 0)
  return Session(name, folder, seed, c.checkpoint_every, c.guard_limit, stage.note_progress)


def _explained_rows(run: Run, split: str) -> np.ndarray:
  """Rows of a split that the teacher has explained."""
  return np.array([row for row in run.store.rows(split).tolist() if row in run.texts])


def _teacher_text(run: Run, pair: Pair) -> StoreRows:
  """The AR's examples: activations of its split with the teacher's text as AR inputs."""
  rows = _explained_rows(run, "ar_sft")
  inputs = pair.encode([run.texts[row] for row in rows.tolist()])
  columns = {"tokens": inputs.tokens, "lengths": inputs.lengths}
  return StoreRows(run.store, rows, columns=columns)


def _watched(run: Run) -> tuple[np.ndarray, list[str]]:
  """The held-out activations behind the points of the SFT curves, and the teacher's text of each."""
  rows = run.store.rows("held_out")
  rows = np.sort(np.random.default_rng(run.config.seed).permutation(rows)[:_WATCHED_ROWS])
  return run.store.read("activations", rows), [run.texts[row] for row in rows.tolist()]


def unevaluated(store: Store, seed: int, n: int) -> np.ndarray:
  """At most n held-out activations that an evaluation with this seed takes last: what chooses is not what measures."""
  # The evaluation takes the first of the same permutation.
  rows = np.random.default_rng(seed).permutation(store.rows("held_out"))
  return store.read("activations", np.sort(rows[-n:]))
