"""Where every array lives on the mesh `(data, fsdp, tensor)`: one table for parameters, one for activations.

Without a mesh in context (`jax.set_mesh`) every function here answers None or returns its input, so the same
model code runs on one device with nothing to set up.
"""
import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

BATCH = ("data", "fsdp")

# Leaf name -> spec of the unstacked leaf; leaves below "layers" get a leading None for the layer axis.
PARAMETERS = {
    "embedding": P("tensor", "fsdp"),
    "unembedding": P("tensor", "fsdp"),
    "query": P("fsdp", "tensor", None),
    "key": P("fsdp", "tensor", None),
    "value": P("fsdp", "tensor", None),
    "output": P("tensor", None, "fsdp"),
    "query_bias": P("tensor", None),
    "key_bias": P("tensor", None),
    "value_bias": P("tensor", None),
    "gate": P("fsdp", "tensor"),
    "up": P("fsdp", "tensor"),
    "down": P("tensor", "fsdp"),
    "matrix": P("fsdp", None),
    "weight": P("fsdp", None),
}

# Logical axis of an activation -> mesh axes.
ACTIVATIONS = {None: None, "batch": BATCH, "heads": "tensor", "hidden": "tensor", "vocabulary": "tensor"}


def parameter_specs(params):
  """PartitionSpec of each leaf of a parameter tree, by the leaf's name; unnamed leaves (norms) are replicated."""

  def spec(path, leaf):
    names = [key.key for key in path if hasattr(key, "key")]
    own = PARAMETERS.get(names[-1], P(*(None,) * (leaf.ndim - ("layers" in names))))
    return P(None, *own) if "layers" in names else own

  return jax.tree_util.tree_map_with_path(spec, params)


def parameter_shardings(params, mesh):
  """NamedSharding of each leaf on `mesh`."""
  return jax.tree.map(lambda spec: NamedSharding(mesh, spec), parameter_specs(params))


def activation(*axes):
  """PartitionSpec for an einsum's result with these logical axes, or None where no mesh is set."""
  if jax.sharding.get_abstract_mesh().empty:
    return None
  return P(*(ACTIVATIONS[axis] for axis in axes))


def place(x, *axes):
  """`x` moved to the layout of these logical axes; unchanged where no mesh is set."""
  spec = activation(*axes)
  return x if spec is None else jax.sharding.reshard(x, spec)
