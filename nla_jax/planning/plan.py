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
import re
import time
from typing import NamedTuple

import jax

from nla_jax.errors import NLAError
from nla_jax.parallel.mesh import check_mesh
from nla_jax.parallel.precision import compute_dtype
from nla_jax.planning import collectives, programs, work
from nla_jax.planning.chips import GIB
from nla_jax.planning.topology import Topology, describe, mesh_of_topology


class Memory(NamedTuple):
  """Bytes on one device while a program runs.

  Attributes:
    arguments: what the program is given.
    results: what it gives back in memory of its own (donated arguments are used again).
    temporaries: what it needs meanwhile.
    code: the program.
    beside: what lies there and the program does not see.
  """

  arguments: int
  results: int
  temporaries: int
  code: int
  beside: int


class Compiled(NamedTuple):
  """What is known of one program on one topology.

  Attributes:
    program: see `programs.Program`.
    memory: of one device; None where the compiler refused the program as too large.
    needed: bytes of a device in all.
    refused: the compiler's own words where it did, else "".
    sent: bytes that a device receives in a call, by kind of collective.
    work: of one device and call.
    seconds: of a call at the roofline.
    bound: what bounds it, `compute`, `memory` or `links`.
    compile_seconds: tracing and compiling.
    text: of the compiled program.
  """

  program: programs.Program
  memory: Memory | None
  needed: float
  refused: str
  sent: dict[str, float]
  work: work.Work
  seconds: float
  bound: str
  compile_seconds: float
  text: str


class Plan(NamedTuple):
  """A config on a topology. `mesh` is (data, fsdp, tensor); `counted` is False where prompt lengths are assumed."""

  topology: Topology
  mesh: tuple[int, int, int]
  compiled: list[Compiled]
  counted: bool

  @property
  def fits(self) -> bool:
    return all(
      one.memory is not None and one.needed <= self.topology.chip.memory for one in self.compiled
    )

  @property
  def step_seconds(self) -> float:
    """Of one RL step at the roofline."""
    per_step = lambda one: one.seconds * (one.program.calls / max(self.rl_steps, 1))
    return sum(per_step(one) for one in self.compiled if one.program.name.startswith("rl"))

  @property
  def rl_steps(self) -> int:
    return next((one.program.calls for one in self.compiled if one.program.name == "rl tokens"), 0)

  @property
  def chip_hours(self) -> float:
    """Of the config's whole run at the roofline, as far as the config says how long it is."""
    return (
      sum(one.seconds * one.program.calls for one in self.compiled) * self.topology.count / 3600
    )


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
  model, key_dtype = programs.find_model(config), jax.random.key(0).dtype
  mesh = mesh_of_topology(topology, config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
  compiled = []
  with jax.set_mesh(mesh), _without_cache():
    check_mesh(model.architecture, config)
    for program in programs.programs(config, model, compute_dtype(config.compute), key_dtype):
      if not names or program.name.startswith(names):
        compiled.append(compile_program(program, topology))
        on_program(compiled[-1])
  return Plan(topology, tuple(mesh.shape.values()), compiled, model.counted)


@contextlib.contextmanager
def _without_cache():
  """jax's compilation cache cannot read back what was compiled for devices that are not here."""
  enabled = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", enabled)


def compile_program(program: programs.Program, topology: Topology) -> Compiled:
  """Compiles one program, in the mesh in context; too large a program gives a result that says so."""
  begun, chip = time.perf_counter(), topology.chip
  given, beside = work.held_bytes(program.arguments), work.held_bytes(program.beside)
  refuse = lambda needed, why: Compiled(
    program, None, needed, why, {}, work.Work(), 0.0, "", time.perf_counter() - begun, ""
  )
  if given + beside > chip.memory:
    return refuse(
      given + beside,
      "too large before it begins, so it was not compiled: its arguments take "
      f"{size(given)}, what lies beside them {size(beside)}",
    )
  traced = program.function.trace(*program.arguments, **program.keywords)
  done = work.work_of(traced.jaxpr.jaxpr, program.loop) + work.Work(0.0, given)
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return refuse(_refused_bytes(str(error)) + beside, " ".join(str(error).split())[:300])
  stats, text = compiled.memory_analysis(), compiled.as_text()
  memory = Memory(
    stats.argument_size_in_bytes,
    stats.output_size_in_bytes - stats.alias_size_in_bytes,
    stats.temp_size_in_bytes,
    stats.generated_code_size_in_bytes,
    beside,
  )
  sent = collectives.bytes_by_kind(collectives.collectives(text, topology.count))
  times = {
    "compute": done.flops / chip.flops,
    "memory": done.bytes / chip.memory_rate,
    "links": sum(sent.values()) / chip.link_rate,
  }
  bound = max(times, key=times.get)
  return Compiled(
    program,
    memory,
    sum(memory),
    "",
    sent,
    done,
    times[bound],
    bound,
    time.perf_counter() - begun,
    text,
  )


def _refused_bytes(message: str) -> float:
  """The largest size that the compiler's refusal names, in bytes."""
  units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
  return max(
    (float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([KMGT])\b", message)),
    default=0.0,
  )


def size(n: float) -> str:
  """Bytes as a person reads them."""
  return f"{n / GIB:.2f} GiB" if n >= GIB / 10 else f"{n / 2**20:.2f} MiB"


def table(plan: Plan) -> str:
  """The plan as text, one line a program."""
  limit = plan.topology.chip.memory
  head = (
    "program",
    "arguments",
    "results",
    "temporaries",
    "beside",
    "in all",
    "received",
    "Tflop",
    "ms",
    "bound",
    "an hour",
    "compiled",
  )
  lines = [head]
  for one in plan.compiled:
    if one.memory is None:
      lines.append(
        (
          one.program.name,
          *("-",) * 4,
          f">{size(one.needed)}",
          *("-",) * 5,
          f"{one.compile_seconds:.0f} s",
        )
      )
      continue
    m, rate = one.memory, 3600 * one.program.rows / one.seconds
    lines.append(
      (
        one.program.name,
        size(m.arguments),
        size(m.results),
        size(m.temporaries + m.code),
        size(m.beside),
        size(one.needed) + ("" if one.needed <= limit else " !"),
        size(sum(one.sent.values())),
        f"{one.work.flops / 1e12:.2f}",
        f"{1e3 * one.seconds:.1f}",
        one.bound,
        f"{rate:,.0f}",
        f"{one.compile_seconds:.0f} s",
      )
    )
  widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
  rows = [
    "  ".join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(line, widths))
    )
    for line in lines
  ]
  title = (
    f"{plan.topology.name}: {plan.topology.count} chips of {size(limit)}, mesh (data, fsdp, tensor) = "
    f"{plan.mesh}; bytes and Tflop a device and call, `an hour`: activations or explanations of the whole slice"
  )
  return "\n".join([title, *rows, *_conclusions(plan)])


def _conclusions(plan: Plan) -> list[str]:
  lines = []
  if not plan.counted:
    lines.append(
      "prompt lengths are those of the reference templates, rounded up: the model's tokenizer is not here"
    )
  kinds = sorted({kind for one in plan.compiled for kind in one.sent})
  for kind in kinds:
    lines.append(
      f"{kind}: "
      + ", ".join(
        f"{one.program.name} {size(one.sent[kind])}" for one in plan.compiled if one.sent.get(kind)
      )
    )
  for one in plan.compiled:
    if one.memory is None:
      lines.append(f"{one.program.name} is refused: {one.refused}")
  too_large = [
    one for one in plan.compiled if one.memory is None or one.needed > plan.topology.chip.memory
  ]
  if too_large:
    worst = max(too_large, key=lambda one: one.needed)
    lines.append(
      f"DOES NOT FIT: {worst.program.name} needs {size(worst.needed)} of "
      f"{size(plan.topology.chip.memory)} a device"
    )
  else:
    lines.append("fits")
    if plan.rl_steps:
      lines.append(f"RL step at the roofline: {plan.step_seconds:.2f} s")
    if all(one.program.calls for one in plan.compiled):
      lines.append(
        f"whole run at the roofline, a lower bound: {plan.chip_hours:.0f} chip-hours, "
        f"{plan.chip_hours / plan.topology.count:.1f} hours"
      )
  return lines


def summary(plan: Plan) -> dict:
  """The plan as plain JSON values."""
  one = lambda c: {
    "memory": None if c.memory is None else c.memory._asdict(),
    "needed": c.needed,
    "refused": c.refused,
    "received": c.sent,
    "flops": c.work.flops,
    "bytes": c.work.bytes,
    "seconds": c.seconds,
    "bound": c.bound,
    "rows": c.program.rows,
    "calls": c.program.calls,
    "compile_seconds": c.compile_seconds,
  }
  return {
    "topology": plan.topology.name,
    "chips": plan.topology.count,
    "mesh": plan.mesh,
    "fits": plan.fits,
    "memory_of_chip": plan.topology.chip.memory,
    "step_seconds": plan.step_seconds,
    "chip_hours": plan.chip_hours,
    "programs": {c.program.name: one(c) for c in plan.compiled},
  }


def next_that_fits(config, plan: Plan) -> Plan | None:
  """The smallest larger slice of the same chips on which the config's largest program fits, with its plan there."""
  generation = plan.topology.name.split(":")[0]
  worst = max(plan.compiled, key=lambda one: one.needed).program.name
  for shape in plan.topology.chip.slices:
    topology = describe(f"{generation}:{shape}")
    if topology.count <= plan.topology.count or topology.count % (
      config.mesh.data * config.mesh.tensor
    ):
      continue
    larger = config.copy_and_resolve_references()
    larger.mesh.fsdp = 0
    try:
      found = make_plan(larger, topology, (worst,))
    except NLAError:
      continue
    if found.fits:
      return found
  return None
