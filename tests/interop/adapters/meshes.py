"""Run as a process of its own with 8 CPU devices: merging on meshes gives what it gives on one device.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python -P tests/interop/adapters/meshes.py
"""

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.interop.adapters.tensors import adapted_leaves, our_shapes
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import Lora
from nla_jax.models.merge import merged
from nla_jax.parallel import sharding
from nla_jax.parallel.mesh import make_mesh

MESHES = ((2, 2, 2), (1, 2, 4))  # with four tensor shards, more than key heads
LAYERS, LORA = 2, Lora(3, 4.0)
ARCHITECTURE = Architecture(
  family="llama",
  vocab_size=304,
  d_model=32,
  n_layers=LAYERS,
  n_heads=4,
  n_kv_heads=2,
  head_dim=8,
  d_ff=48,
  rope_theta=1e4,
  rms_eps=1e-5,
  max_positions=512,
  tied=True,
)

random = np.random.default_rng(0)
base, adapter = {}, {}
for name, leaf in adapted_leaves(ARCHITECTURE).items():
  shapes = our_shapes(leaf, ARCHITECTURE, LORA.rank)
  for half, shape in zip("ab", shapes, strict=True):
    adapter[f"{name}_lora_{half}"] = random.normal(size=(LAYERS, *shape)).astype(np.float32)
  base[name] = random.normal(size=(LAYERS, *leaf.shape(ARCHITECTURE)))

for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)):
  stacks = {"layers": {name: stack.astype(dtype) for name, stack in base.items()}}
  alone = merged(jax.tree.map(jnp.asarray, stacks), LORA, {"layers": adapter})["layers"]
  for shape in MESHES:
    with jax.set_mesh(make_mesh(*shape)):
      placed = sharding.shard_params(stacks)
      for overwrite in (False, True):
        found = merged(placed, LORA, {"layers": adapter}, overwrite=overwrite)["layers"]
        for name, stack in found.items():
          before = placed["layers"][name]
          assert stack.dtype == dtype and before.is_deleted() == overwrite
          assert stack.sharding.is_equivalent_to(before.sharding, stack.ndim)
          np.testing.assert_allclose(
            np.asarray(stack, np.float32),
            np.asarray(alone[name], np.float32),
            rtol=tolerance,
            atol=tolerance,
          )
