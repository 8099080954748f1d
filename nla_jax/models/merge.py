"""Adapters added to the matrices that they stand beside."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.errors import NLAError
from nla_jax.models.lora import Lora, delta, split
from nla_jax.models.parameters import lower_params
from nla_jax.models.products import from_bits
from nla_jax.models.reconstructor import Reconstructor
from nla_jax.models.verbalizer import Verbalizer


def merged(
  params: dict[str, Any], lora: Lora, adapter: dict[str, Any], *, overwrite: bool = False
) -> dict[str, Any]:
  """The base's parameter tree with the adapter added to its matrices.

  The change is computed in float32 one layer after the other, and its sum with the base is rounded to the base's
  dtype. Beside the result there is never more than one layer's change.

  Args:
    params: of the base, block parameters stacked along a leading layer axis, on one device or laid out on a mesh.
    lora: of the adapter.
    adapter: {"layers": {…}} as `adapter_params` has it, on the host or on the devices, with as many layers as
      `params`.
    overwrite: the result takes the memory of the adapted matrices in `params`, which must not be used again.

  Returns:
    A tree like `params`; what is not adapted is the same array.

  Raises:
    NLAError: the adapter has other layers or shapes than the base.
  """
  layers = dict(params["layers"])
  changes = {
    name: (adapter["layers"][f"{name}_lora_a"], adapter["layers"][f"{name}_lora_b"])
    for name in lora.targets
  }
  for name, (a, b) in changes.items():
    found, base = (*a.shape[:-1], *b.shape[2:]), layers[name].shape
    if found != base or a.shape[-1] != b.shape[1] or len(b) != len(a):
      raise NLAError(
        f"the adapter's {name} changes a stack of {list(found)}, the base has {list(base)}: it belongs to "
        "another base, or was read for another number of blocks"
      )

  for name, (a, b) in changes.items():
    weights = layers[name] if overwrite else jnp.copy(layers[name])
    layers[name] = _add(lora, weights, *_placed(weights, a, b))
  return {**params, "layers": layers}


def without_adapters(params: dict[str, Any], model: Verbalizer | Reconstructor) -> dict[str, Any]:
  """An AV's or AR's tree with its adapters added to its base, float32; a tree without adapters as it is.

  Of an AR's base only the blocks that it computes are kept, without what follows them.
  """
  trained, base = split(params)
  if base is None:
    return params

  def unpacked(leaf):
    found = from_bits(leaf).astype(jnp.float32)
    # The sum takes its memory, and a base in float32 is itself what others read.
    return jnp.copy(found) if found is leaf else found

  n_layers = model.architecture.n_layers
  if isinstance(model, Reconstructor):
    base = lower_params(base, n_layers)
  whole = jax.tree.map(unpacked, base)
  transformer = merged(whole, model.lora, trained["transformer"], overwrite=True)
  return trained | {"transformer": transformer}


def _placed(weights: jax.Array, a, b) -> tuple[jax.Array, jax.Array]:
  """A and B where the matrices' devices need them: each cut along the axes that it shares with the matrix."""
  where = weights.sharding
  if not isinstance(where, NamedSharding):
    return jax.device_put(a, where), jax.device_put(b, where)

  inputs = a.ndim - 2
  spec = (*where.spec, *(None,) * (weights.ndim - len(where.spec)))[1:]
  of_a, of_b = P(None, *spec[:inputs], None), P(None, None, *spec[inputs:])
  return (
    jax.device_put(a, NamedSharding(where.mesh, of_a)),
    jax.device_put(b, NamedSharding(where.mesh, of_b)),
  )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _add(lora: Lora, weights, a, b):
  """A stack of matrices with each layer's change added, in the memory of `weights`."""
  dtype = weights.dtype
  # XLA's CPU backend updates bfloat16 in place only as bits.
  packed = dtype.itemsize == 2
  bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint16)

  def add(layer, stack):
    base = jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)
    base = jax.lax.bitcast_convert_type(base, dtype).astype(jnp.float32)
    changed = (base + delta(lora, a[layer], b[layer])).astype(dtype)
    changed = bits(changed) if packed else changed
    return jax.lax.dynamic_update_index_in_dim(stack, changed, layer, 0)

  stack = jax.lax.fori_loop(0, len(weights), add, bits(weights) if packed else weights)
  return jax.lax.bitcast_convert_type(stack, dtype)
