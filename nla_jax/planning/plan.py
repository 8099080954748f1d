"""`nla plan`: whether a config's run fits machines that are not here, and what it would cost there.

  nla plan --config=configs/qwen2_5_7b.py --topology=v5p:2x2x4
  nla plan --config=configs/llama3_3_70b.py --topology=v6e:16x16 --suggest
  nla plan --config=configs/qwen2_5_7b.py --topology=h100:8 --config.mesh.tensor=1

Every program of the run is compiled for the chips by the compiler that would compile it there. Memory is the
compiler's own figure for one device, and what else lies there meanwhile; collectives are read from the compiled text;
operations and bytes of the matrix products are counted from the traced program (`work`). The roofline time is the
largest of three times at the chip's peak rates: computing, reading memory, receiving from other chips. No run is that
fast: chip-hours are a lower bound. Nothing needs an accelerator; the compilers come with
the extras `tpu` and `gpu`.
"""

import contextlib
from typing import NamedTuple

import jax

from nla_jax.errors import NLAError
from nla_jax.models.lora import Lora
from nla_jax.parallel.mesh import check_mesh
from nla_jax.parallel.precision import compute_dtype
from nla_jax.planning.compiled import Compiled, compile_program
from nla_jax.planning.model import find_model
from nla_jax.planning.programs import programs
from nla_jax.planning.topology import Topology, describe, mesh_of_topology
from nla_jax.training.settings import adapters


class Plan(NamedTuple):
  """A config on a topology.

  Attributes:
    topology: see `topology.Topology`.
    mesh: sizes of the axes data, fsdp and tensor.
    compiled: the programs.
    counted: False where prompt lengths are assumed, since the model's tokenizer is not here.
    trained: how many parameters are, by model, "av" and "ar".
    lora: the adapters, which these then are; None where every weight is trained.
  """

  topology: Topology
  mesh: tuple[int, int, int]
  compiled: list[Compiled]
  counted: bool
  trained: dict[str, int]
  lora: Lora | None

  @property
  def too_large(self) -> list[Compiled]:
    """The programs that do not fit on a device."""
    limit = self.topology.chip.memory
    return [one for one in self.compiled if one.memory is None or one.needed > limit]

  @property
  def fits(self) -> bool:
    """Whether every program fits on a device."""
    return not self.too_large

  @property
  def step_seconds(self) -> float:
    """Seconds of one RL step at the roofline."""
    of_rl = [one for one in self.compiled if one.program.name.startswith("rl")]
    return sum(one.seconds * (one.program.calls / max(self.rl_steps, 1)) for one in of_rl)

  @property
  def rl_steps(self) -> int:
    """RL steps of the config; 0 where the token loop, which each of them calls once, is not in the plan."""
    return next((one.program.calls for one in self.compiled if one.program.name == "rl tokens"), 0)

  @property
  def chip_hours(self) -> float:
    """Chip-hours of the config's whole run at the roofline, as far as the config says how long it is."""
    seconds = sum(one.seconds * one.program.calls for one in self.compiled)
    return seconds * self.topology.count / 3600


def make_plan(
  config, topology: Topology, names: tuple[str, ...] = (), on_program=lambda one: None
) -> Plan:
  """Compiles a config's programs for a topology.

  Args:
    config: the run's; its `mesh` must multiply to the topology's devices.
    topology: from `topology.describe`.
    names: only programs whose name begins with one of these; all where empty.
    on_program: called with each `Compiled`.

  Raises:
    NLAError: mesh, heads or batches do not divide.
  """
  # Before the mesh is set: reading a model and making a key need a device that is here.
  model, key_dtype = find_model(config), jax.random.key(0).dtype
  mesh = mesh_of_topology(topology, config.mesh.data, config.mesh.fsdp, config.mesh.tensor)

  compiled, trained = [], {}
  with jax.set_mesh(mesh), _without_cache():
    check_mesh(model.architecture, config)
    for program in programs(config, model, compute_dtype(config.compute), key_dtype):
      # Which parameters the states of SFT hold, whether these programs are compiled or not.
      if program.name in ("sft av", "sft ar"):
        state = program.arguments[0]
        trained[program.name[-2:]] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
      if not names or program.name.startswith(names):
        compiled.append(compile_program(program, topology))
        on_program(compiled[-1])
  lora, shape = adapters(config.lora), tuple(mesh.shape.values())
  return Plan(topology, shape, compiled, model.counted, trained, lora)


@contextlib.contextmanager
def _without_cache():
  """Switches jax's compilation cache off: it cannot read back what was compiled for devices that are not here."""
  enabled = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", enabled)


def next_that_fits(config, plan: Plan) -> Plan | None:
  """The plan of the config's largest program on the smallest larger slice of the same chips that holds it, or None."""
  generation = plan.topology.name.split(":")[0]
  worst = max(plan.compiled, key=lambda one: one.needed).program.name
  for shape in plan.topology.chip.slices:
    topology = describe(f"{generation}:{shape}")
    replicas = config.mesh.data * config.mesh.tensor
    if topology.count <= plan.topology.count or topology.count % replicas:
      continue

    # More chips mean more shards of every parameter: fsdp takes what the other axes leave.
    larger = config.copy_and_resolve_references()
    larger.mesh.fsdp = 0
    try:
      found = make_plan(larger, topology, (worst,))
    except NLAError:
      continue
    if found.fits:
      return found
  return None
