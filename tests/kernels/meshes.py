"""Run as a process of its own with 8 CPU devices: the kernel on meshes against chunks on one device, as JSON.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python tests/kernels/meshes.py
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.kernels.token_scores import FORMS, token_scores
from nla_jax.models import token_scores as scores_of_model
from nla_jax.parallel import sharding
from nla_jax.parallel.mesh import make_mesh

# mesh (data, fsdp, tensor), then batch, length, vocabulary, width; then whether the gradient of the matrix is shared.
CASES = {
  "everything shared": ((2, 2, 2), 8, 5, 300, 24),
  "vocabulary and width do not divide": ((1, 2, 4), 4, 7, 301, 25),
  "one row for all": ((2, 2, 2), 1, 9, 300, 24),
  "rows only": ((4, 2, 1), 8, 3, 130, 9),
}


def gradients(form, params, batch):
  """By chunks, or by a form of the kernel."""
  by = (
    scores_of_model.token_scores
    if form == "chunks"
    else functools.partial(token_scores, form=form, interpret=True)
  )

  def loss(params, batch):
    scores = scores_of_model.TokenScores(
      *by(batch["hidden"], params["unembedding"], batch["targets"], jnp.float32)
    )
    return jnp.sum(
      batch["weights"][..., 0] * scores.logprob + batch["weights"][..., 1] * scores.entropy
    ), scores

  (_, scores), (dw, dh) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True))(
    params, batch
  )
  return scores, dw["unembedding"], dh["hidden"]


def main() -> None:
  random = np.random.default_rng(0)
  errors = {}
  for name, (shape, rows, length, words, d) in CASES.items():
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    params = {"unembedding": draw(words, d)}
    batch = {
      "hidden": draw(rows, length, d),
      "weights": draw(rows, length, 2),
      "targets": random.integers(0, words, (rows, length)).astype(np.int32),
    }
    expected = gradients(
      "chunks", jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, batch)
    )
    error = lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
    for form in FORMS:
      with jax.set_mesh(make_mesh(*shape)):
        placed = sharding.shard_params(params)
        found = gradients(form, placed, sharding.shard_rows(batch))
        assert found[1].sharding.is_equivalent_to(placed["unembedding"].sharding, 2), name
        found = jax.tree.map(sharding.fetch, found)
      errors[f"{name}, {form}"] = max(jax.tree.leaves(jax.tree.map(error, found, expected)))
  json.dump(errors, sys.stdout)


if __name__ == "__main__":
  main()
