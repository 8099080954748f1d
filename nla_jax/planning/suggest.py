"""`nla plan --suggest`: which mesh and how many rows a step are worth trying on a slice."""

import itertools

from nla_jax.errors import NLAError
from nla_jax.planning.chips import size
from nla_jax.planning.plan import make_plan
from nla_jax.planning.topology import Topology


def suggest(config, topology: Topology, names: tuple[str, ...], tries: int) -> str:
  """Compiles the RL step for several meshes and batch sizes, and ranks those that fit.

  Args:
    config: the run's; its own mesh does not matter.
    topology: from `topology.describe`.
    names: compile the programs whose name begins with one of these instead.
    tries: how many meshes. Those with few replicas come first; a mesh that does not fit is tried once more with half
      the rows a step.
  """
  fitting, refused = [], []
  for shape in itertools.islice(_meshes(topology), tries):
    for share in (1, 2):
      changed = config.copy_and_resolve_references()
      changed.mesh.update(dict(zip(("data", "fsdp", "tensor"), shape)))
      changed.rl.activations = max(config.rl.activations // share, 1)
      title = f"mesh {shape}, rl.activations {changed.rl.activations}"

      # What cannot be cut so cannot be with half the rows either.
      try:
        made = make_plan(changed, topology, names or ("rl",))
      except NLAError as error:
        refused.append(f"{title}: {error}")
        break

      needed = size(max(one.needed for one in made.compiled))
      if not made.fits:
        refused.append(f"{title}: does not fit, {needed} a device")
        continue
      seconds = sum(one.seconds for one in made.compiled)
      rate = 3600 * made.compiled[0].program.rows / seconds
      line = (
        f"{title}: {needed} a device, {seconds:.2f} s a step at the roofline, "
        f"{rate:,.0f} rows an hour"
      )
      fitting.append((rate, line))
      break
  return _ranked(topology, fitting, refused)


def _ranked(topology: Topology, fitting: list[tuple[float, str]], refused: list[str]) -> str:
  """The text: what fits, by its rate, then what does not."""
  ranked = [line for _, line in sorted(fitting, reverse=True)]
  if not refused:
    return "\n".join([f"{topology.name}, fastest first:", *ranked])
  title = f"{topology.name}, {topology.count} chips; fitting, fastest first:"
  return "\n".join([title, *(ranked or ["none"]), "not:", *refused])


def _meshes(topology: Topology):
  """Meshes (data, fsdp, tensor) over all devices: few replicas first, then tensor shards 4, 2, 8, 1, 16."""
  # Each replica holds the whole state, so what is too large with few of them is too large with more.
  for replicas in (1, 2, 4, 8):
    for tensor in (4, 2, 8, 1, 16):
      data = replicas * topology.slices
      if topology.count % (data * tensor) == 0:
        yield data, topology.count // (data * tensor), tensor
