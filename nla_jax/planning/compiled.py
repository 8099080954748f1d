"""One program compiled for a topology: its memory, its collectives, its work, and a call's time at the roofline."""

import re
import time
from typing import NamedTuple

import jax

from nla_jax.planning import collectives, work
from nla_jax.planning.abstract import Program
from nla_jax.planning.chips import Chip, size
from nla_jax.planning.topology import Topology


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
    program: see `abstract.Program`.
    memory: of one device; None where the compiler refused the program as too large.
    needed: bytes of a device in all.
    refused: the compiler's own words where it did, else "".
    sent: bytes that a device receives in a call, by kind of collective.
    work: of one device and call.
    seconds: of a call at the roofline.
    bound: what bounds it, `compute`, `memory` or `links`; "" where the program was refused.
    compile_seconds: tracing and compiling.
    text: of the compiled program.
  """

  program: Program
  memory: Memory | None
  needed: float
  refused: str
  sent: dict[str, float]
  work: work.Work
  seconds: float
  bound: str
  compile_seconds: float
  text: str


def compile_program(program: Program, topology: Topology) -> Compiled:
  """Compiles one program in the mesh in context; for a program that is too large, the result says so."""
  begun, chip = time.perf_counter(), topology.chip
  given = work.held_bytes(program.arguments)
  beside = work.held_bytes(program.beside, program.arguments)

  def refused(needed: float, why: str) -> Compiled:
    seconds = time.perf_counter() - begun
    return Compiled(program, None, needed, why, {}, work.Work(), 0.0, "", seconds, "")

  # 1. What does not fit before it begins is not compiled, which would take minutes.
  if given + beside > chip.memory:
    return refused(
      given + beside,
      "too large before it begins, so it was not compiled: its arguments take "
      f"{size(given)}, what lies beside them {size(beside)}",
    )

  # 2. Tracing gives the work, compiling the memory and the collectives.
  traced = program.function.trace(*program.arguments, **program.keywords)
  done = work.work_of(traced.jaxpr.jaxpr, program.loop) + work.Work(0.0, given)
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return refused(_refused_bytes(str(error)) + beside, " ".join(str(error).split())[:300])

  # 3. The figures of one call.
  stats, text = compiled.memory_analysis(), compiled.as_text()
  memory = Memory(
    stats.argument_size_in_bytes,
    # Donated arguments are used again for results: those take no memory of their own.
    stats.output_size_in_bytes - stats.alias_size_in_bytes,
    stats.temp_size_in_bytes,
    stats.generated_code_size_in_bytes,
    beside,
  )
  sent = collectives.bytes_by_kind(collectives.collectives(text, topology.count))
  bound, seconds = _roofline(done, sum(sent.values()), chip)
  taken = time.perf_counter() - begun
  return Compiled(program, memory, sum(memory), "", sent, done, seconds, bound, taken, text)


def _roofline(done: work.Work, received: float, chip: Chip) -> tuple[str, float]:
  """What bounds a call, and its seconds: the largest of three times at the chip's peak rates."""
  times = {
    "compute": done.flops / chip.flops,
    "memory": done.bytes / chip.memory_rate,
    "links": received / chip.link_rate,
  }
  bound = max(times, key=times.get)
  return bound, times[bound]


def _refused_bytes(message: str) -> float:
  """The largest size that the compiler's refusal names, in bytes."""
  units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
  # It names the limit and the excess as well; what is needed in all is the largest.
  return max(
    (float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([KMGT])\b", message)),
    default=0.0,
  )
