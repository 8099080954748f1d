"""`nla plan --suggest`: which mesh and how many rows a step are worth trying on a slice."""

import itertools

from nla_jax.errors import NLAError
from nla_jax.planning import plan
from nla_jax.planning.topology import Topology


def suggest(config, topology: Topology, names: tuple[str, ...], tries: int) -> str:
  """Compiles the RL step (or the programs named) for several meshes and batch sizes and ranks those that fit.

  Meshes are the ways to share the devices, those with few replicas tried first. A mesh that does not fit is tried once
  more with half the rows a step.
  """
  names = names or ("rl",)
  found, lines = [], []
  for shape in itertools.islice(_meshes(topology), tries):
    for share in (1, 2):
      changed = config.copy_and_resolve_references()
      changed.mesh.update(dict(zip(("data", "fsdp", "tensor"), shape)))
      changed.rl.activations = max(config.rl.activations // share, 1)
      title = f"mesh {shape}, rl.activations {changed.rl.activations}"
      try:
        made = plan.make_plan(changed, topology, names)
      except NLAError as error:
        lines.append(f"{title}: {error}")
        break
      needed = plan.size(max(one.needed for one in made.compiled))
      if not made.fits:
        lines.append(f"{title}: does not fit, {needed} a device")
        continue
      seconds = sum(one.seconds for one in made.compiled)
      rate = 3600 * made.compiled[0].program.rows / seconds
      found.append(
        (
          rate,
          f"{title}: {needed} a device, {seconds:.2f} s a step at the roofline, "
          f"{rate:,.0f} rows an hour",
        )
      )
      break
  ranked = [line for _, line in sorted(found, reverse=True)]
  return "\n".join(
    [
      f"{topology.name}, {topology.count} chips; fitting, fastest first:",
      *(ranked or ["none"]),
      "not:",
      *lines,
    ]
    if lines
    else [f"{topology.name}, fastest first:", *ranked]
  )


def _meshes(topology: Topology):
  """Meshes (data, fsdp, tensor) over all devices: few replicas first, then tensor shards 4, 2, 8, 1, 16."""
  for replicas in (1, 2, 4, 8):
    for tensor in (4, 2, 8, 1, 16):
      data = replicas * topology.slices
      if topology.count % (data * tensor) == 0:
        yield data, topology.count // (data * tensor), tensor
