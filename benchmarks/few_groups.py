"""How often 95 % intervals hold the truth when documents are few: the bootstrap's percentiles and what is reported.

  python benchmarks/few_groups.py [--trials=4000]

Each trial draws a number of groups of unequal size, a mean error for each group and errors around it (as much between
groups as within, as held-out articles have it), and asks both intervals of the mean whether the true mean is inside.
"""

import argparse

import numpy as np

from nla_jax.evaluation import intervals

GROUPS = (2, 3, 4, 5, 6, 7, 8, 10, 14, 20, 40)
BETWEEN, WITHIN, TRUTH = 0.1, 0.1, 0.6


def draw(random: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
  """Errors [n] and the group of each."""
  sizes = random.integers(8, 25, groups)
  names = np.repeat(np.arange(groups), sizes)
  means = random.normal(TRUTH, BETWEEN, groups)
  return means[names] + random.normal(0, WITHIN, len(names)), names


def holds(ci95: tuple[float, float]) -> bool:
  return ci95[0] <= TRUTH <= ci95[1]


def percentiles(errors: np.ndarray, names: np.ndarray, seed: int) -> tuple[float, float]:
  """The bootstrap's interval, however few the groups."""
  sizes = np.bincount(names).astype(float)
  sums = np.bincount(names, weights=errors)
  random = np.random.default_rng(seed)
  draws = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=1000)
  return tuple(np.quantile((draws @ sums) / (draws @ sizes), [0.025, 0.975]))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--trials", type=int, default=4000)
  trials = parser.parse_args().trials

  print("| groups | percentiles of the bootstrap | as reported |\n|---|---|---|")
  for groups in GROUPS:
    random, found = np.random.default_rng(groups), []
    for trial in range(trials):
      errors, names = draw(random, groups)
      reported = intervals.bootstrap_mean(errors, names, samples=1000, seed=trial)
      found.append((holds(percentiles(errors, names, trial)), holds(reported.ci95)))
    plain, ours = np.mean(found, axis=0)
    print(f"| {groups} | {plain:.3f} | {ours:.3f} |", flush=True)


if __name__ == "__main__":
  main()
