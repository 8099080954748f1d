"""Which recipe of RL is worth its seconds: variants from one SFT result, the same training time each, several seeds.

  python benchmarks/recipe.py --folder=runs/recipe [--config=configs/smollm2_135m.py] [--set=rl.activations=4 …]
    [--seconds=900] [--seeds=2] [--looks=6] [--variants=base,best_texts,…]

1. `shared/` is a workdir with extract, teach and sft. Variants that change SFT (adapters) get a workdir `sft_NAME/` of
   their own on the same activations and texts.
2. Every variant is measured before any of them runs: the median seconds of three steps that compile nothing. Its number
   of steps follows from --seconds. Looking at held-out activations and compiling are no part of it.
3. `NAME/SEED/` is one run. What is done is skipped, what was stopped goes on. Each runs in a process of its own.
4. `points.jsonl` has every look of every run against its training seconds; the table is printed and kept in `table.md`.

All looks score the same held-out activations: by the AR that is trained, and by the AR as the variant's SFT left it.
`common` is the AR of the shared SFT, so that variants with an SFT of their own can be compared with the others.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from nla_jax import files
from nla_jax.autoencoder.fve import baseline_variance, fve, mse_nrm
from nla_jax.autoencoder.pair import Pair
from nla_jax.config import load_config
from nla_jax.parallel import process
from nla_jax.progress import read_metrics, say
from nla_jax.run import stages
from nla_jax.run.run import Run, begin
from nla_jax.run.training_stages import injection_scale, rl_examples, rl_start
from nla_jax.training import rl as rl_lib
from nla_jax.training.checkpoint import drop_checkpoints
from nla_jax.training.loop import Session
from nla_jax.workdir import CHECKPOINTS, COMPILED, FOLDERS

PHASES = ("seconds_rollout", "seconds_ar", "seconds_av")
TIMED = 3  # steps behind a variant's seconds a step
WHOLE = ("steps", "seconds", "at step")  # columns without decimals
SPEED, RESULT = "speed.json", "result.json"


class Variant(NamedTuple):
  """A recipe: what it changes in the config.

  Attributes:
    rl: keys of `config.rl`.
    sft: dotted keys that SFT depends on; empty where it begins from the shared result.
  """

  rl: Mapping[str, Any] = MappingProxyType({})
  sft: Mapping[str, Any] = MappingProxyType({})


# Several updates a step: only there cispo differs from ppo.
_FOUR = {"minibatches": 4}
_NEWEST = {"advantage": "batch", "drop_constant": True, "ar_texts": "best"}
VARIANTS = {
  "base": Variant(),
  "minibatches": Variant(_FOUR),
  "cispo": Variant(_FOUR | {"loss": "cispo"}),
  "batch_advantage": Variant({"advantage": "batch"}),
  "mean_advantage": Variant({"advantage": "mean"}),
  "drop_constant": Variant({"drop_constant": True}),
  "best_texts": Variant({"ar_texts": "best"}),
  "newest": Variant(_NEWEST),
  "log_reward": Variant({"reward": "log"}),
  "truncate": Variant({"truncate": True}),
  "truncate_taper": Variant({"truncate": True, "kl_taper": 8.0}),
  "reword": Variant({"reword": 0.5}),
  "reword_order": Variant({"reword": 0.5, "reword_by": "order"}),
  "true_claims": Variant({"false_claim_cost": 0.3}),
  "no_kl": Variant({"kl_weight": 0.0}),
  "ar_first": Variant({"ar_steps": 16}),
  "ar_teacher": Variant({"ar_teacher": 0.25}),
  "ar_lagged": Variant({"ar_ema": 0.98}),
  "extremes": Variant({"extremes": 4}),
  "extremes_best": Variant({"extremes": 4, "ar_texts": "best"}),
  "group_16": Variant({"activations": 4, "group": 16}),
  "group_4": Variant({"activations": 16, "group": 4}),
  "av_rate_x3": Variant({"av.lr": 6e-5}),
  "av_rate_third": Variant({"av.lr": 7e-6}),
  "lora_16": Variant(
    {"av.lr": 2e-4, "ar.lr": 5e-4}, {"lora.rank": 16, "av.lr": 3e-3, "ar.lr": 1e-3}
  ),
  "lora_64": Variant(
    {"av.lr": 2e-4, "ar.lr": 5e-4}, {"lora.rank": 64, "av.lr": 3e-3, "ar.lr": 1e-3}
  ),
  "lora_64_slow": Variant(
    {"av.lr": 6e-5, "ar.lr": 2e-4}, {"lora.rank": 64, "av.lr": 1e-3, "ar.lr": 3e-4}
  ),
}


def config_of(options, variant: Variant, **rl):
  """The config of a variant, with further values of `config.rl`."""
  set_by_hand = dict(one.split("=", 1) for one in options.set)
  values = {key: _value(text) for key, text in set_by_hand.items()}
  changes = {f"rl.{key}": value for key, value in {**variant.rl, **rl}.items()}
  return load_config(options.config, {**values, **variant.sft, **changes})


def _value(text: str):
  """A value of the command line: JSON, or else the text itself."""
  try:
    return json.loads(text)
  except ValueError:
    return text


def workdir_of(options, name: str) -> Path:
  """The workdir with the SFT result that a variant begins from."""
  return options.folder / (f"sft_{name}" if VARIANTS[name].sft else "shared")


def supervise(options, name: str) -> None:
  """The SFT result that a variant begins from; what is done is skipped."""
  shared, workdir = options.folder / "shared", workdir_of(options, name)
  workdir.mkdir(parents=True, exist_ok=True)
  if workdir != shared:
    for stage in ("extract", "teach"):
      link = workdir / FOLDERS[stage]
      if not link.exists():
        link.symlink_to((shared / FOLDERS[stage]).resolve())

  with begin(config_of(options, Variant(sft=VARIANTS[name].sft)), workdir) as run:
    for stage in (stages.extract, stages.teach, stages.sft):
      stage(run)


def train(run: Run, folder: Path, seed: int) -> tuple[Pair, dict[str, Any], rl_lib.Examples]:
  """RL in a folder, as the stage runs it."""
  c = run.config
  pair = run.pair(injection_scale(run))
  examples = rl_examples(run, pair)
  session = Session(
    folder.parent.name, folder, seed, c.checkpoint_every, c.guard_limit, lambda: None, keep=1
  )
  return pair, rl_lib.train(pair, c.rl, rl_start(run), examples, session), examples


def step_seconds(line: dict) -> float:
  """What one step took, without looks."""
  return sum(line[phase] for phase in PHASES)


def measure_speed(options, name: str) -> None:
  """Writes a variant's seconds a step, of both models and of the AR alone, from steps that compile nothing."""
  variant, folder = VARIANTS[name], options.folder / name / "speed"
  alone = 2 if config_of(options, variant).rl.ar_steps else 0
  steps = {"ar_steps": alone, "steps": alone + 1 + TIMED}
  run = Run(config_of(options, variant, **steps), workdir_of(options, name))
  train(run, folder, run.config.seed)

  lines = read_metrics(folder)
  found = {
    "both": statistics.median(map(step_seconds, lines[alone + 1 :])),
    "alone": step_seconds(lines[1]) if alone else 0.0,
  }
  drop_checkpoints(folder / CHECKPOINTS)
  files.write_json(folder.parent / SPEED, found)


def steps_for(seconds: float, speed: dict[str, float], ar_steps: int) -> int:
  """How many steps a variant takes in its seconds; at least one of both models."""
  left = seconds - ar_steps * speed["alone"]
  return ar_steps + max(round(left / speed["both"]), 1)


def reinforce(options, name: str, seed: int) -> None:
  """One run of a variant, and how the AR of the shared SFT reads what its AV says at the end."""
  variant, folder = VARIANTS[name], options.folder / name / str(seed)
  ar_steps = config_of(options, variant).rl.ar_steps
  steps = steps_for(options.seconds, files.read_json(folder.parent / SPEED), ar_steps)
  watch = {"watch_every": max(steps // options.looks, 1), "watch_rows": options.rows}
  run = Run(config_of(options, variant, steps=steps, **watch), workdir_of(options, name))

  # Seeds change the order of activations and every draw; SFT is the same for all of them.
  pair, trained, examples = train(run, folder, run.config.seed + seed)
  texts, _ = pair.sample_explanations(trained["av"], examples.held_out, jax.random.key(seed))
  shared = Run(config_of(options, Variant()), options.folder / "shared")
  critic = shared.pair(injection_scale(shared))
  rebuilt = critic.reconstruct(rl_start(shared).ar_params, texts)
  errors = mse_nrm(rebuilt, examples.held_out)

  common = float(fve(errors, baseline_variance(examples.held_out)))
  drop_checkpoints(folder / CHECKPOINTS)
  files.write_json(folder / RESULT, {"steps": steps, "common": common, "texts": texts[:8]})


def charged_seconds(steps: list[dict], speed: dict[str, float]) -> list[float]:
  """What each step of a run counts; the first of its kind, which compiles, counts what the variant's speed says."""
  charged = [step_seconds(line) for line in steps]
  kinds = ["both" if "kl" in line else "alone" for line in steps]
  for kind in set(kinds):
    charged[kinds.index(kind)] = speed[kind]
  return charged


def looks_of(folder: Path) -> list[dict]:
  """The looks of a run, each with the training seconds before it."""
  lines = read_metrics(folder)
  # The last line of a finished run is a look without a step.
  steps = [line for line in lines if PHASES[0] in line]
  charged = charged_seconds(steps, files.read_json(folder.parent / SPEED))
  return [
    line | {"seconds_training": sum(charged[:i])}
    for i, line in enumerate(lines)
    if "fve_fixed" in line
  ]


def row_of(folder: Path) -> dict[str, float]:
  """The numbers of a finished run that the table shows."""
  looks, result = looks_of(folder), files.read_json(folder / RESULT)
  last, best = looks[-1], max(looks, key=lambda look: look["fve_fixed"])
  kl = [line["kl"] for line in read_metrics(folder) if "kl" in line]
  return {
    "steps": result["steps"],
    "seconds": last["seconds_training"],
    "live": last["fve_held_out"],
    "fixed": last["fve_fixed"],
    "best fixed": best["fve_fixed"],
    "at step": best["step"],
    "common": result["common"],
    "retention": last.get("retention_shuffle", float("nan")),
    "duplicates": last.get("duplicates_held_out", float("nan")),
    "KL": kl[-1] if kl else float("nan"),
    "live before": looks[0]["fve_held_out"],
  }


def table(options, names: list[str]) -> str:
  """The table of all finished runs: a variant a row, each number the mean over seeds ± half of their range."""
  lines = []
  for name in names:
    folders = [options.folder / name / str(seed) for seed in range(options.seeds)]
    rows = [row_of(folder) for folder in folders if (folder / RESULT).exists()]
    if not rows:
      continue
    if not lines:
      lines += [f"| variant | seeds | {' | '.join(rows[0])} |", "|---" * (len(rows[0]) + 2) + "|"]
    cells = [_cell([row[key] for row in rows], key in WHOLE) for key in rows[0]]
    lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
  return "\n".join(lines)


def _cell(values: list[float], whole: bool) -> str:
  mean, half = statistics.mean(values), (max(values) - min(values)) / 2
  if whole:
    return f"{mean:.0f}" if half < 0.5 else f"{mean:.0f} ± {half:.0f}"
  return f"{mean:.3f} ± {half:.3f}" if len(values) > 1 else f"{mean:.3f}"


def write_points(options, names: list[str]) -> None:
  """Every look of every run, a JSON line each."""
  points = []
  for name in names:
    for seed in range(options.seeds):
      looks = looks_of(options.folder / name / str(seed))
      points += [{"variant": name, "seed": seed, **look} for look in looks]
  text = "".join(json.dumps(point) + "\n" for point in points)
  files.write_text(options.folder / "points.jsonl", text)


def in_a_process(options, *task: str) -> None:
  """Runs one task in a process of its own, so that the memory of one run is gone before the next begins."""
  say(f"recipe: {' '.join(task)}")
  command = [sys.executable, "-P", __file__, *options.given, "--task", *task]
  subprocess.run(command, check=True)


def parse(given: list[str]) -> argparse.Namespace:
  """The options, with the command line itself, which processes get again."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--folder", type=Path, required=True)
  parser.add_argument("--config", default="configs/smollm2_135m.py")
  parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
  parser.add_argument("--seconds", type=float, default=900.0)
  parser.add_argument("--seeds", type=int, default=2)
  parser.add_argument("--looks", type=int, default=6)
  parser.add_argument("--rows", type=int, default=48)
  parser.add_argument("--variants", default=",".join(VARIANTS))
  parser.add_argument("--task", nargs="+", default=[], help=argparse.SUPPRESS)

  options = parser.parse_args(given)
  options.folder, options.given = options.folder.absolute(), given
  return options


def main() -> None:
  options = parse(sys.argv[1:])
  if options.task:
    process.keep_compiled_programs(options.folder / COMPILED)
    work, name, *seed = options.task
    {"sft": supervise, "speed": measure_speed, "rl": reinforce}[work](
      options, name, *map(int, seed)
    )
    return

  # All speeds before the first run, so that the same machine at the same time decides on all numbers of steps.
  names = options.variants.split(",")
  for name in ["base", *(name for name in names if VARIANTS[name].sft)]:
    in_a_process(options, "sft", name)
  for name in names:
    if not (options.folder / name / SPEED).exists():
      in_a_process(options, "speed", name)

  # Seed by seed: whoever stops early has every variant once.
  for seed in range(options.seeds):
    for name in names:
      if not (options.folder / name / str(seed) / RESULT).exists():
        in_a_process(options, "rl", name, str(seed))
      write_points(options, names)
      files.write_text(options.folder / "table.md", table(options, names) + "\n")
  print(table(options, names))


if __name__ == "__main__":
  main()
