"""Run as a process of its own, with libtpu: gradients of the kernel compiled for TPUs that are not here, as JSON.

  python tests/kernels/compiled.py

Of each topology and mesh: how many kernels the program holds, and whether any array has the size of the logits.
"""
import json
import os
import re
import sys

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.parallel.mesh import AXES
from nla_jax.training import losses

ROWS, LENGTH, WORDS, WIDTH = 8, 163, 2500, 72


def loss(hidden, matrix, targets):
  scores = losses.token_scores(hidden, matrix, targets, jnp.bfloat16)
  return jnp.sum(scores.logprob + scores.entropy)


def main() -> None:
  found = {}
  for topology in ("v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    for shape in ((1, 1, 1), (1, 2, 2)):
      mesh = Mesh(np.array(devices[:np.prod(shape)]).reshape(shape), AXES, axis_types=(AxisType.Explicit,) * 3)
      of = lambda shape, dtype, *spec, mesh=mesh: jax.ShapeDtypeStruct(
          shape, dtype, sharding=NamedSharding(mesh, P(*spec)))
      with jax.set_mesh(mesh):
        text = jax.jit(jax.grad(loss, (0, 1))).lower(
            of((ROWS, LENGTH, WIDTH), jnp.float32, ("data", "fsdp")), of((WORDS, WIDTH), jnp.float32, "tensor", "fsdp"),
            of((ROWS, LENGTH), jnp.int32, ("data", "fsdp"))).compile().as_text()
      sizes = [np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"\w\[([\d,]+)\]", text)]
      found[f"{topology} {shape}"] = {"kernels": text.count('custom_call_target="tpu_custom_call"'),
                                      "logits": bool(max(sizes) >= ROWS * LENGTH * WORDS // np.prod(shape))}
  json.dump(found, sys.stdout)


if __name__ == "__main__":
  main()
