"""Replace or norm-matched add, scalar or affine: the AV's SFT four times, from one config, one seed, one order of data.

  nla run --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m      (its extraction and teacher are read)
  python benchmarks/injection.py --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m [--steps=32]

Each way of injecting is trained on the teacher's text of the workdir's `av_sft` rows and then reads held-out
activations: its loss a token with each row's own vector, and with the next row's. The margin between them is what it
reads from the vector. Intervals are of a bootstrap over articles; differences to the first way are paired by row. The
workdir is not changed. Written to `benchmarks/results/injection.json`, with a table printed last.
"""

import argparse
import dataclasses
import functools
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.rows import encode_answers
from nla_jax.config import load_config
from nla_jax.data.loader import StoreRows
from nla_jax.evaluation.intervals import bootstrap_mean
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.run.run import Run
from nla_jax.run.training_stages import injection_scale
from nla_jax.training import losses, sft

ROOT = Path(__file__).parents[1]
WAYS = (("replace", "scalar"), ("replace", "affine"), ("add", "scalar"), ("add", "affine"))
BATCH = 16


def row_losses(pair: Pair, params, vectors: np.ndarray, answers) -> np.ndarray:
  """The mean loss a token of each row's answer, [n]."""

  @jax.jit
  def score(params, batch):
    return losses.masked_mean(
      -pair.score_answers(params, batch["activations"], batch["tokens"]).logprob,
      batch["mask"],
      axis=1,
    )

  found = []
  for start in range(0, len(vectors), BATCH):
    part = slice(start, start + BATCH)
    rows = {
      "activations": vectors[part],
      "tokens": answers.tokens[part],
      "mask": answers.mask[part],
    }
    found.append(score(params, rows))
  return np.concatenate(found)


def fit(run: Run, steps: int, held_out: np.ndarray) -> dict[str, np.ndarray]:
  """Trains an AV and scores it.

  Returns:
    {"own", "other"}: losses of `held_out` rows after `steps` updates with the config's way of injecting.
  """
  c, store = run.config, run.store
  pair = run.pair(injection_scale(run))
  rows = np.array([row for row in store.rows("av_sft").tolist() if row in run.texts])
  answers = encode_answers(run.prompts, pair.tokenizer, [run.texts[row] for row in rows.tolist()])

  settings = c.av
  settings.steps = steps
  params = verbalizer_params(run.base_params(), pair.verbalizer.architecture.d_model, c.inject.map)
  examples = StoreRows(store, rows, columns={"tokens": answers.tokens, "mask": answers.mask})
  with tempfile.TemporaryDirectory() as folder:
    stage = sft.Run(
      f"sft av {c.inject.mode} {c.inject.map}",
      Path(folder),
      settings,
      c.seed,
      10 * steps,
      c.guard_limit,
      lambda: None,
    )
    params = sft.fit(
      stage, params, functools.partial(sft.av_loss, pair=pair), examples, lambda params: {}
    )

  # The next row's vector: rows are sorted, so it is often of the same document, which makes the margin modest.
  vectors = store.read("activations", held_out)
  texts = encode_answers(run.prompts, pair.tokenizer, [run.texts[row] for row in held_out.tolist()])
  return {
    "own": row_losses(pair, params, vectors, texts),
    "other": row_losses(pair, params, np.roll(vectors, 1, axis=0), texts),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description="Ways of injecting, compared.")
  parser.add_argument("--config", required=True)
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--steps", type=int, default=32)
  parser.add_argument("--rows", type=int, default=256, help="held-out activations")
  parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "injection.json"))
  arguments = parser.parse_args()

  found, groups = {}, None
  for mode, kind in WAYS:
    config = load_config(arguments.config)
    config.inject.update(mode=mode, map=kind)
    run = Run(config, arguments.workdir)
    store = run.store
    held_out = np.sort(
      np.random.default_rng(config.seed).permutation(store.rows("held_out"))[: arguments.rows]
    )
    documents = store.read("document", held_out)
    groups = np.array([store.documents[int(i)].group for i in documents])
    found[f"{mode}, {kind}"] = fit(run, arguments.steps, held_out)
    jax.clear_caches()  # four ways are four sets of programs, and memory is short

  # Differences are paired: the same rows, so that what is hard about a row cancels.
  first = next(iter(found.values()))["own"]

  def estimate(values: np.ndarray) -> dict:
    return dataclasses.asdict(bootstrap_mean(values, groups))

  table = {
    name: {
      "loss_own": estimate(one["own"]),
      "margin": estimate(one["other"] - one["own"]),
      "loss_above_first": estimate(one["own"] - first),
    }
    for name, one in found.items()
  }
  result = {
    "steps": arguments.steps,
    "batch": config.av.batch,
    "rows": len(groups),
    "articles": len(set(groups)),
    "ways": table,
  }
  Path(arguments.out).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")

  def show(one: dict) -> str:
    return f"{one['value']:.3f} [{one['ci95'][0]:.3f}, {one['ci95'][1]:.3f}]"

  print(
    "| injection | held-out loss a token | margin over another row's vector | loss above the first |\n"
    "|---|---|---|---|"
  )
  for name, one in table.items():
    print(
      f"| {name} | {show(one['loss_own'])} | {show(one['margin'])} | {show(one['loss_above_first'])} |"
    )


if __name__ == "__main__":
  main()
