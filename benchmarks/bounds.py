"""How far float32 could go in each part of `against_torch.py`: torch's time over that of our products by themselves.

  python benchmarks/bounds.py [--parts=rollout,av_sft]

Every product of the programs that our variant runs is read from their jaxprs, with nothing computed twice (no remat, no
chunks computed again). Each distinct product with a weight is timed by itself, compiled by the same XLA, its operands
as XLA likes them, several copies in one program so that the call's own time does not count. Products inside attention
are taken to run as fast as the fastest of those. All else is free: norms, softmax, rotation, optimizer, cache. What
torch needs is measured in the same run. So no change around these products brings the ratio above the last column, on
this machine; only faster or fewer products could.
"""
import argparse
import collections
import functools
import json
import math
import os
import statistics
import time

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


def products(jaxpr, times: int, found: collections.Counter) -> None:
  """Adds {(shapes, dtypes and dimension numbers of a product): how often it runs}."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      left, right = (variable.aval for variable in equation.invars)
      found[left.shape, right.shape, left.dtype.name, right.dtype.name, equation.params["dimension_numbers"]] += times
    trips = {"scan": equation.params.get("length"), "while": against_torch.ANSWER - 1}.get(equation.primitive.name, 1)
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "jaxpr")):
      if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
        products(getattr(value, "jaxpr", value), times * trips, found)


def operations(product) -> int:
  """Floating-point operations of one product."""
  left, right, *_, ((contracted, _), (batch, _)) = product
  size = lambda shape, axes: math.prod(shape[i] for i in axes)
  return 2 * math.prod(left) * math.prod(right) // size(left, contracted) // size(left, batch)


def in_attention(product) -> bool:
  """Whether both operands are activations: each row multiplies its own keys or values, or the shared prefix's."""
  *_, (_, (batch, _)) = product
  return bool(batch)


def seconds(product) -> float:
  """The fastest of several times of one product."""
  *shapes, left_dtype, right_dtype, numbers = product
  multiply = lambda a, b: jax.lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)
  like = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in zip(shapes, (left_dtype, right_dtype))]
  copies = BYTES // sum(4 * x.size for x in (*like, jax.eval_shape(multiply, *like)))
  draw = np.random.default_rng(0)
  operands = [tuple(jnp.asarray(draw.normal(size=x.shape), x.dtype) for x in like)
              for _ in range(int(np.clip(copies, 1, 32)))]
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
  found = collections.Counter()
  for program in RECORDED:
    products(program.jaxpr, 1, found)
  part.run["torch_float32"]()
  torch = statistics.median(against_torch.timed(part.run["torch_float32"])[0] for _ in range(rounds))
  with_weights = [product for product in found if not in_attention(product)]
  taken = {product: seconds(product) for product in with_weights}
  fastest = max(operations(product) / taken[product] for product in with_weights)
  taken |= {product: operations(product) / fastest for product in found if in_attention(product)}
  share = lambda some: sum(found[product] * taken[product] for product in some)
  alone, weights = share(found), share(with_weights)
  work = sum(found[product] * operations(product) for product in with_weights)
  largest = sorted(with_weights, key=lambda product: -found[product] * taken[product])[:8]
  return {"torch_float32": round(torch, 3), "with_weights": round(weights, 3), "attention": round(alone - weights, 3),
          "ratio_at_most": round(torch / alone, 2), "gflop_with_weights": round(work / 1e9, 1),
          "gflop_per_second": round(work / weights / 1e9), "fastest_gflop_per_second": round(fastest / 1e9),
          "largest": [{"left": one[0], "right": one[1], "times": found[one],
                       "gflop_per_second": round(operations(one) / taken[one] / 1e9),
                       "share": round(found[one] * taken[one] / alone, 3)} for one in largest]}


def main() -> None:
  parser = argparse.ArgumentParser(description="Torch's time over that of our float32 products alone.")
  parser.add_argument("--parts", default=",".join(against_torch.PARTS))
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args()
  path = against_torch.ROOT / "benchmarks" / "results" / f"cpu-{len(os.sched_getaffinity(0))}-cores-bounds.json"
  bench = against_torch.Bench()
  bench.config.remat = False
  bench.pairs = {name: bench._pair(dtype, bench.pairs[name].verbalizer.scale) for name, dtype in bench.dtypes.items()}
  print("| | torch float32, s | products with weights, s | GFLOP/s | attention's, s | ratio at most |\n"
        "|---|---|---|---|---|---|")
  for name in arguments.parts.split(","):
    entry = bound(against_torch.PARTS[name](bench), arguments.rounds)
    results = json.loads(path.read_text()) if path.exists() else {}
    results |= {"machine": against_torch.machine(), name: entry}
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    columns = ("torch_float32", "with_weights", "gflop_per_second", "attention", "ratio_at_most")
    print("| " + " | ".join([name, *(str(entry[column]) for column in columns)]) + " |", flush=True)


if __name__ == "__main__":
  main()
