"""Which dtype matrix products round their operands to."""

import jax
import jax.numpy as jnp

from nla_jax.errors import NLAError


def platform() -> str:
  """`cpu`, `gpu` or `tpu`: the platform of the mesh in context, else of this machine."""
  # The devices of a plan's mesh are not here; its programs are still theirs.
  mesh = jax.sharding.get_abstract_mesh()
  return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def compute_dtype(setting: str):
  """The dtype that a config's `compute` asks for.

  Args:
    setting: `float32`, `bfloat16`, or `auto`: bfloat16 on accelerators and on CPUs that multiply it natively, else
      float32.

  Raises:
    NLAError: the setting is none of these.
  """
  if setting in ("float32", "bfloat16"):
    return jnp.dtype(setting)
  if setting != "auto":
    raise NLAError(f"config.compute={setting!r}: expected float32, bfloat16 or auto")
  if platform() != "cpu":
    return jnp.dtype("bfloat16")

  # A CPU without these instructions converts bfloat16 to float32 and back around every product, which costs time.
  try:
    with open("/proc/cpuinfo") as file:
      flags = file.read()
    native = "avx512_bf16" in flags or "amx_bf16" in flags
  except OSError:
    native = False
  return jnp.dtype("bfloat16" if native else "float32")
