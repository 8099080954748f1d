"""How often the 95 % intervals of an evaluation hold the truth, by the number of document groups.

  python benchmarks/interval_coverage.py [--trials=2000] [--write=benchmarks/results/interval_coverage.json]

Errors of rows are 0.5, an effect of their group, and noise. Three kinds of groups: of one size with normal effects; of
1 to 20 rows; and with skewed effects (lognormal), as where a few documents are much harder. Both intervals are measured
at every number of groups, and which of them an evaluation takes is marked.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from nla_jax.evaluation import intervals

GROUPS = (2, 3, 4, 5, 6, 7, 8, 13, 30)
KINDS = ("normal", "sizes", "skewed")
SAMPLES, TRUTH = 1000, 0.5


def drawn(generator: np.random.Generator, groups: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """The sum and the rows [groups] of each group of one evaluation."""
  sizes = np.full(groups, 8)
  if kind == "sizes":
    sizes = generator.integers(1, 21, groups)

  effects = generator.normal(0, 0.1, groups)
  if kind == "skewed":
    effects = 0.1 * (generator.lognormal(0, 0.75, groups) - np.exp(0.75**2 / 2))
  noise = np.array([generator.normal(0, 0.1, size).sum() for size in sizes])
  return sizes * (TRUTH + effects) + noise, sizes.astype(float)


def coverage(groups: int, kind: str, trials: int) -> dict[str, float]:
  """The share of intervals that hold the truth, of each kind of interval."""
  generator = np.random.default_rng(groups)
  hits = {"percentile": 0, "t": 0}
  for trial in range(trials):
    sums, sizes = drawn(generator, groups, kind)
    found = {"percentile": intervals.percentile_interval(sums, sizes, SAMPLES, trial)}
    if groups < intervals.FEW_GROUPS:
      found["t"] = intervals.t_interval(sums, sizes)
    for name, (low, high) in found.items():
      hits[name] += low <= TRUTH <= high

  shares = {name: count / trials for name, count in hits.items()}
  return shares if groups < intervals.FEW_GROUPS else {"percentile": shares["percentile"]}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--trials", type=int, default=2000)
  parser.add_argument("--write", type=Path)
  options = parser.parse_args()

  table = []
  print("groups  " + "  ".join(f"{kind:>20}" for kind in KINDS) + "   (percentile / t)")
  for groups in GROUPS:
    row = {kind: coverage(groups, kind, options.trials) for kind in KINDS}
    table.append({"groups": groups, **row})
    cells = [" / ".join(f"{share:.3f}" for share in row[kind].values()) for kind in KINDS]
    print(f"{groups:6d}  " + "  ".join(f"{cell:>20}" for cell in cells), flush=True)

  if options.write:
    found = {"trials": options.trials, "samples": SAMPLES, "coverage": table}
    options.write.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  main()
