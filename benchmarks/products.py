"""How fast this machine multiplies, by operand and result dtype: why `models/products.py` rounds operands.

  python benchmarks/products.py

A and B are timed in turn in one process; the fastest of several is shown, in GFLOP/s, and as a ratio to float32.
"""

import time

import jax
import jax.numpy as jnp

ROWS, WIDTH, HIDDEN, REPEATS = 1040, 576, 1536, 8
FORMS = {
  "forward": "nd,df->nf",
  "gradient of the input": "nf,df->nd",
  "gradient of the weight": "nd,nf->df",
}
KINDS = {
  "float32": (jnp.float32, jnp.float32),
  "bfloat16 to float32": (jnp.bfloat16, jnp.float32),
  "bfloat16 to bfloat16": (jnp.bfloat16, jnp.bfloat16),
}


def main() -> None:
  sizes = {"n": ROWS, "d": WIDTH, "f": HIDDEN}
  for name, form in FORMS.items():
    programs, fastest = {}, {}
    for kind, (operand, result) in KINDS.items():
      left, right = form.split("->")[0].split(",")
      draw = lambda axes, operand=operand: jax.random.normal(
        jax.random.key(0), [sizes[a] for a in axes]
      ).astype(operand)
      product = jax.jit(
        lambda a, b, form=form, result=result: jnp.einsum(form, a, b, preferred_element_type=result)
      )
      programs[kind] = (product, draw(left), draw(right))
      product(*programs[kind][1:]).block_until_ready()
      fastest[kind] = float("inf")
    for _ in range(REPEATS):
      for kind, (product, a, b) in programs.items():
        begun = time.perf_counter()
        product(a, b).block_until_ready()
        fastest[kind] = min(fastest[kind], time.perf_counter() - begun)
    for kind, seconds in fastest.items():
      print(
        f"{name:24s} {kind:22s} {2 * ROWS * WIDTH * HIDDEN / seconds / 1e9:7.0f} GFLOP/s  "
        f"{fastest['float32'] / seconds:.2f} × float32"
      )


if __name__ == "__main__":
  main()
