"""Evaluates an installed pair on held-out activations of the run that it came from, and writes its card.

  python benchmarks/evaluate_package.py runs/box package:nla_smollm2 --rows=160 [--card=FOLDER] [--out=FILE.json]
    [--suites=NAME,NAME --preset=quick --keep=FOLDER --report=FILE.html]

The run may be half done: its store, the teacher's texts and the pair of its SFT (the fixed critic) are read. With
--keep suites that have answered their question are not asked again after a stop.
"""

import argparse
import json
import time
from pathlib import Path

import nla_jax
from nla_jax import evaluation, quantities
from nla_jax.data.explanations import read_explanations
from nla_jax.data.store.store import Store
from nla_jax.evaluation import harness
from nla_jax.evaluation.report.page import write_report
from nla_jax.interop.pairs import model_card
from nla_jax.run.load import load_run
from nla_jax.workdir import STORE, TEXTS

EXAMPLES = 12


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("workdir", type=Path)
  parser.add_argument("pair")
  parser.add_argument("--rows", type=int, default=160)
  parser.add_argument("--seed", type=int, default=42)
  parser.add_argument("--card", type=Path, help="folder with av/ and ar/, whose cards are written")
  parser.add_argument("--out", type=Path, help="JSON file for the numbers and some explanations")
  parser.add_argument("--suites", default="", help="that answer a question, beside the numbers")
  parser.add_argument("--preset", default="quick", help="how many items such a suite looks at")
  parser.add_argument("--keep", type=Path, help="folder for the answers of finished suites")
  parser.add_argument("--report", type=Path, help="HTML page")
  options = parser.parse_args()

  begun = time.time()
  report = evaluation.evaluate(
    nla_jax.load(options.pair),
    Store(str(options.workdir / STORE)),
    texts=read_explanations(str(options.workdir / TEXTS)),
    before_rl=load_run(options.workdir, stage="sft"),
    rows=options.rows,
    seed=options.seed,
    batch=32,
    suites=[*quantities.suites(), *filter(None, options.suites.split(","))],
    preset=options.preset,
    keep=options.keep,
  )
  print(harness.table(report.metrics))
  print(f"{time.time() - begun:.0f} s")

  if options.out:
    found = {"metrics": report.metrics, "examples": report.examples(EXAMPLES)}
    options.out.write_text(json.dumps(found, indent=1) + "\n")
  if options.report:
    shown = {"title": f"{options.pair}, held out", "metrics": report.metrics}
    write_report(options.report, shown | {"examples": report.examples(200)})
  for role in ("av", "ar") if options.card else ():
    model_card.write_card(options.card / role, report.metrics)


if __name__ == "__main__":
  main()
