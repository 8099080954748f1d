"""How far float32 could go in each part of `against_torch.py`: torch's time over that of our products by themselves.

  python benchmarks/bounds.py [--parts=rollout,av_sft]

Every product of the programs that our variant runs is read from their jaxprs, with nothing computed twice (no remat, no
chunks computed again). Each distinct product with a weight is timed by itself, compiled by the same XLA, its operands
as XLA likes them, several copies in one program so that the call's own time does not count. Products inside attention
are taken to run as fast as the fastest of those. All else is free: norms, softmax, rotation, optimizer, cache. What
torch needs is measured in the same run; of both the fastest time counts, since what slows one of them alone is no gain
of the other's. So no change around these products brings the ratio above the last column, on this machine; only faster
or fewer products could.
"""

import argparse
import collections
import functools
import json
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RECORDED, _jit = [], jax.jit
BYTES, REPEATS = 2**28, 9  # operands of one timed program; times that it runs


def _recording_jit(function=None, **options):
  """`jax.jit` whose outermost calls leave their jaxpr in `RECORDED`."""
  if function is None:
    return functools.partial(_recording_jit, **options)
  compiled = _jit(function, **options)

  @functools.wraps(function)
  def call(*args, **kwargs):
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs))):
      RECORDED.append(compiled.trace(*args, **kwargs).jaxpr)
    return compiled(*args, **kwargs)

  return call


jax.jit = _recording_jit  # before our modules take it
jax.checkpoint = lambda function, **_: function

import against_torch  # noqa: E402 - after jit and checkpoint

from nla_jax.planning import work  # noqa: E402


class Product(NamedTuple):
  """What tells one matrix product from another.

  Attributes:
    left, right: shapes of the float32 operands.
    numbers: `dot_general`'s dimension numbers.
    flops: operations.
  """

  left: tuple[int, ...]
  right: tuple[int, ...]
  numbers: tuple
  flops: float

  @property
  def in_attention(self) -> bool:
    """Whether both operands are activations: each row multiplies its own keys or values, or the shared prefix's."""
    _, (batch, _) = self.numbers
    return bool(batch)


def recorded() -> collections.Counter:
  """{product: how often it ran} of the calls recorded."""
  found = collections.Counter()
  for program in RECORDED:
    for equation, times in work.products(program.jaxpr, loop=against_torch.ANSWER - 1):
      left, right = (one.aval for one in equation.invars)
      assert left.dtype == right.dtype == jnp.float32
      found[
        Product(
          left.shape,
          right.shape,
          equation.params["dimension_numbers"],
          work.product_work(equation).flops,
        )
      ] += times
  return found


def seconds(product: Product) -> float:
  """The fastest of several times of one product."""
  multiply = lambda a, b: jax.lax.dot_general(
    a, b, product.numbers, preferred_element_type=jnp.float32
  )
  like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (product.left, product.right)]
  copies = BYTES // sum(4 * x.size for x in (*like, jax.eval_shape(multiply, *like)))
  draw = np.random.default_rng(0)
  operands = [
    tuple(jnp.asarray(draw.normal(size=x.shape), x.dtype) for x in like)
    for _ in range(int(np.clip(copies, 1, 32)))
  ]
  program = _jit(lambda pairs: [multiply(a, b) for a, b in pairs])
  jax.block_until_ready(program(operands))
  taken = []
  for _ in range(REPEATS):
    begun = time.perf_counter()
    jax.block_until_ready(program(operands))
    taken.append(time.perf_counter() - begun)
  return min(taken) / len(operands)


def bound(part, rounds: int) -> dict:
  part.run["ours_float32"]()
  RECORDED.clear()
  part.run["ours_float32"]()
  found = recorded()
  part.run["torch_float32"]()
  torch = min(against_torch.timed(part.run["torch_float32"])[0] for _ in range(rounds))
  with_weights = [product for product in found if not product.in_attention]
  taken = {product: seconds(product) for product in with_weights}
  fastest = max(product.flops / taken[product] for product in with_weights)
  taken |= {product: product.flops / fastest for product in found if product.in_attention}
  spent = lambda some: sum(found[product] * taken[product] for product in some)
  alone, weights = spent(found), spent(with_weights)
  flops = sum(found[product] * product.flops for product in with_weights)
  largest = sorted(with_weights, key=lambda product: -found[product] * taken[product])[:8]
  return {
    "torch_float32": round(torch, 3),
    "with_weights": round(weights, 3),
    "attention": round(alone - weights, 3),
    "ratio_at_most": round(torch / alone, 2),
    "gflop_with_weights": round(flops / 1e9, 1),
    "gflop_per_second": round(flops / weights / 1e9),
    "fastest_gflop_per_second": round(fastest / 1e9),
    "largest": [
      {
        "left": one.left,
        "right": one.right,
        "times": found[one],
        "gflop_per_second": round(one.flops / taken[one] / 1e9),
        "share": round(found[one] * taken[one] / alone, 3),
      }
      for one in largest
    ],
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description="Torch's time over that of our float32 products alone."
  )
  parser.add_argument("--parts", default=",".join(against_torch.PARTS))
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args()
  path = (
    against_torch.ROOT
    / "benchmarks"
    / "results"
    / f"cpu-{len(os.sched_getaffinity(0))}-cores-bounds.json"
  )
  bench = against_torch.Bench(remat=False)
  print(
    "| | torch float32, s | products with weights, s | GFLOP/s | attention's, s | ratio at most |\n"
    "|---|---|---|---|---|---|"
  )
  for name in arguments.parts.split(","):
    entry = bound(against_torch.PARTS[name](bench), arguments.rounds)
    results = json.loads(path.read_text()) if path.exists() else {}
    results |= {"machine": against_torch.machine(), name: entry}
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    columns = ("torch_float32", "with_weights", "gflop_per_second", "attention", "ratio_at_most")
    print("| " + " | ".join([name, *(str(entry[column]) for column in columns)]) + " |", flush=True)


if __name__ == "__main__":
  main()
