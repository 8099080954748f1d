"""On 8 devices every mesh gives the numbers and the tokens of one device, and what cannot be is said beforehand."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from nla_jax.config import default_config
from nla_jax.errors import NLAError
from nla_jax.parallel.mesh import check_mesh, make_mesh

PROGRAM = Path(__file__).parents[1] / "support" / "mesh_numbers.py"
MESHES = (  # in the order of the program; with four tensor shards, more than key heads
  "(2, 2, 2)",
  "(1, 2, 4)",
  "(8, 1, 1)",
  "(1, 8, 1)",
  "(1, 1, 1)",
)
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"  # eight devices share what cores there are


@pytest.mark.slow
@pytest.mark.parametrize(
  ("family", "meshes", "rank"),
  [
    # The family of most kinds of parameters meets both meshes on which each of them is sharded in each way.
    ("gemma3_text", 2, 0),
    *(
      pytest.param(family, len(MESHES), 0, marks=pytest.mark.long)
      for family in ("llama", "qwen2", "qwen3", "gemma3_text")
    ),
    ("qwen2", 1, 4),  # adapters; their base has its embedding for an unembedding too
  ],
)
def test_losses_and_sampled_tokens_do_not_depend_on_the_mesh(family, meshes, rank):
  """The process also asserts that the optimizer's state is sharded like its parameters."""
  variables = {"JAX_NUM_CPU_DEVICES": "8", "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {PATIENT}"}
  done = subprocess.run(
    [sys.executable, str(PROGRAM), family, str(meshes), str(rank)],
    capture_output=True,
    text=True,
    timeout=850,
    env={**os.environ, **variables},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(done.stdout)
  alone = found.pop("none")
  assert found.keys() == set(MESHES[:meshes])
  for mesh, here in found.items():
    assert here["tokens"] == alone["tokens"], mesh
    for curve in ("sft_av", "sft_ar", "rl_av"):
      np.testing.assert_allclose(
        here[curve], alone[curve], rtol=1e-4, atol=1e-4, err_msg=f"{curve} on {mesh}"
      )
    assert alone["sft_av"][-1] < alone["sft_av"][0] and alone["sft_ar"][-1] < alone["sft_ar"][0]


@pytest.mark.parametrize("shape", [(2, 3, 1), (0, 1, 1), (1, -1, 1)])
def test_a_mesh_that_does_not_match_the_devices_is_refused(shape):
  with pytest.raises(NLAError, match=r"config\.mesh"):
    make_mesh(*shape)


def test_heads_and_batches_that_do_not_divide_are_refused(monkeypatch):
  from nla_jax.parallel import sharding

  config = default_config()
  config.av.batch = config.ar.batch = 16
  config.rl.update(activations=8, group=3)
  model = types.SimpleNamespace(n_heads=9, d_ff=1536)
  monkeypatch.setattr(sharding, "size", lambda axes: 2 if axes == "tensor" else 1)
  with pytest.raises(NLAError, match="9 query heads"):
    check_mesh(model, config)
  monkeypatch.setattr(sharding, "size", lambda axes: 1 if axes == "tensor" else 16)
  with pytest.raises(NLAError, match=r"activations × rl\.group .* is 24"):
    check_mesh(model, config)
