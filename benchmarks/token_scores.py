"""Memory and time of token scores with both gradients: the Pallas kernel, chunks under checkpoint, all logits at once.

  JAX_PLATFORMS=cpu python benchmarks/token_scores.py v5e:2x2 v5p:2x2x1 v6e:2x2    memory on TPUs not here (libtpu)
  JAX_PLATFORMS=cpu python benchmarks/token_scores.py a100:4 h100:4    and on GPUs (jax's CUDA plugin)
  python benchmarks/token_scores.py --rows=8192    time on this machine's first device

Memory is what the compiler reports as temporaries of one device, beside arguments and results: on one chip, and on the
mesh fsdp=2, tensor=2. Arguments are float32 and products bfloat16, as in training; so a bfloat16 copy of the matrix is
in every number, and is given as the least there can be. Times are taken in turn; the fastest of several is shown. The
kernel is timed on TPUs and GPUs only.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.models import token_scores
from nla_jax.models.products import einsum
from nla_jax.parallel.mesh import AXES
from nla_jax.planning.topology import describe

SHAPES = {
  "Qwen2.5 0.5B": (896, 151_936),
  "Qwen2.5 7B": (3584, 152_064),
  "Gemma 3 27B": (5376, 262_144),
}
MESHES = {"one chip": (1, 1, 1), "fsdp=2 tensor=2": (1, 2, 2)}
LENGTH, REPEATS = 128, 5


def plain(hidden, matrix, targets, dtype):
  """All logits at once."""
  logprobs = jax.nn.log_softmax(
    einsum("bsd,vd->bsv", hidden, matrix, dtype, "batch", None, "vocabulary")
  )
  here = jnp.arange(len(matrix)) == targets[..., None]
  entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
  return token_scores.TokenScores(jnp.sum(jnp.where(here, logprobs, 0.0), axis=-1), entropy)


FORMS = {
  "kernel": functools.partial(token_scores.token_scores, kernel="on"),
  "chunks": functools.partial(token_scores.token_scores, kernel="off"),
  "all logits": plain,
}


def gradients(form):
  def loss(hidden, matrix, targets):
    scores = FORMS[form](hidden, matrix, targets, jnp.bfloat16)
    return jnp.mean(scores.logprob) + 0.01 * jnp.mean(scores.entropy)

  return jax.jit(jax.value_and_grad(loss, (0, 1)))


def temporaries(topology: str, rows: int) -> None:
  devices = describe(topology).devices
  for (name, (d, words)), (where, sizes) in (
    (a, b) for a in SHAPES.items() for b in MESHES.items()
  ):
    mesh = Mesh(
      np.array(devices[: np.prod(sizes)]).reshape(sizes), AXES, axis_types=(AxisType.Explicit,) * 3
    )
    of = lambda shape, dtype, *spec, mesh=mesh: jax.ShapeDtypeStruct(
      shape, dtype, sharding=NamedSharding(mesh, P(*spec))
    )
    arguments = (
      of((rows // LENGTH, LENGTH, d), jnp.float32, ("data", "fsdp")),
      of((words, d), jnp.float32, "tensor", "fsdp"),
      of((rows // LENGTH, LENGTH), jnp.int32, ("data", "fsdp")),
    )
    found = {"copy of the matrix": f"{words // sizes[2] * d * 2 / 2**20:,.0f} MiB"}
    for form in FORMS:
      with jax.set_mesh(mesh):
        try:
          memory = gradients(form).lower(*arguments).compile().memory_analysis()
          found[form] = f"{memory.temp_size_in_bytes / 2**20:,.0f} MiB"
        except jax.errors.JaxRuntimeError as error:
          if "RESOURCE_EXHAUSTED" not in str(error):
            raise
          found[form] = "does not fit"
    print(
      f"{topology:12s}{name:14s}{where:17s}",
      *(f"{form} {text:14s}" for form, text in found.items()),
      flush=True,
    )


def times(rows: int) -> None:
  device = jax.devices()[0]
  forms = [form for form in FORMS if form != "kernel" or device.platform != "cpu"]
  for name, (d, words) in SHAPES.items():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (rows // LENGTH, LENGTH, d))
    matrix = jax.random.normal(keys[1], (words, d)) / d**0.5
    targets = jax.random.randint(keys[2], hidden.shape[:2], 0, words)
    programs, fastest = {}, {}
    for form in forms:
      program = gradients(form)
      try:
        jax.block_until_ready(program(hidden, matrix, targets))
      except jax.errors.JaxRuntimeError as error:
        print(f"{name}: {form} failed: {str(error).splitlines()[0]}")
      else:
        programs[form], fastest[form] = program, float("inf")
    for _ in range(REPEATS):
      for form, program in programs.items():
        begun = time.perf_counter()
        jax.block_until_ready(program(hidden, matrix, targets))
        fastest[form] = min(fastest[form], time.perf_counter() - begun)
    for form, seconds in fastest.items():
      print(
        f"{device.device_kind:14s}{name:14s}{rows:6d} rows  {form:12s}{1e3 * seconds:10.1f} ms  "
        f"{seconds / fastest['chunks']:.2f} × chunks",
        flush=True,
      )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "topologies", nargs="*", help="such as v5e:2x2; without any, times are taken here"
  )
  parser.add_argument("--rows", type=int, default=8192, help="tokens scored")
  options = parser.parse_args()
  if not options.topologies:
    times(options.rows)
  for topology in options.topologies:
    temporaries(topology, options.rows)


if __name__ == "__main__":
  main()
