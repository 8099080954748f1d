"""Run as a process of its own: gradients of token scores compiled for TPUs or GPUs that are not here, as JSON.

  python tests/kernels/compiled.py v5e:2x2,v6e:2x2 auto    (libtpu; for GPUs jax's CUDA plugin)

Of each topology and mesh: how many kernels the program holds, and whether any array has the size of the logits.
"""

import json
import os
import re
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.models import token_scores
from nla_jax.parallel.mesh import AXES
from nla_jax.planning.topology import describe

ROWS, LENGTH, WORDS, WIDTH = 8, 163, 20_000, 72


KERNEL = re.compile(r'custom_call_target="(tpu_custom_call|[^"]*triton[^"]*)"')


def loss(hidden, matrix, targets, kernel):
  scores = token_scores.token_scores(hidden, matrix, targets, jnp.bfloat16, kernel=kernel)
  return jnp.sum(scores.logprob + scores.entropy)


def main() -> None:
  found = {}
  topologies, kernel = sys.argv[1:]
  for topology in topologies.split(","):
    devices = describe(topology).devices
    for shape in ((1, 1, 1), (1, 2, 2)):
      mesh = Mesh(
        np.array(devices[: np.prod(shape)]).reshape(shape),
        AXES,
        axis_types=(AxisType.Explicit,) * 3,
      )
      of = lambda shape, dtype, *spec, mesh=mesh: jax.ShapeDtypeStruct(
        shape, dtype, sharding=NamedSharding(mesh, P(*spec))
      )
      with jax.set_mesh(mesh):
        text = (
          jax.jit(jax.grad(loss, (0, 1)), static_argnums=3)
          .lower(
            of((ROWS, LENGTH, WIDTH), jnp.float32, ("data", "fsdp")),
            of((WORDS, WIDTH), jnp.float32, "tensor", "fsdp"),
            of((ROWS, LENGTH), jnp.int32, ("data", "fsdp")),
            kernel,
          )
          .compile()
          .as_text()
        )
      sizes = [
        np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"\w\[([\d,]+)\]", text)
      ]
      found[f"{topology} {shape}"] = {
        "kernels": len(KERNEL.findall(text)),
        "logits": bool(max(sizes) >= ROWS * LENGTH * WORDS // np.prod(shape)),
      }
  json.dump(found, sys.stdout)


if __name__ == "__main__":
  main()
