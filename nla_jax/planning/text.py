"""A plan for a person, as a table with its conclusions, and for a program, as plain JSON values."""

from nla_jax.planning.chips import size
from nla_jax.planning.compiled import Compiled
from nla_jax.planning.plan import Plan

_HEAD = (
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


def table(plan: Plan) -> str:
  """The plan as text: a line for each program, then what follows from them."""
  limit = plan.topology.chip.memory
  lines = [_HEAD, *(_line(one, limit) for one in plan.compiled)]

  # The first column is words, the others are numbers.
  widths = [max(map(len, column)) for column in zip(*lines)]
  rows = [
    "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
  ]

  title = (
    f"{plan.topology.name}: {plan.topology.count} chips of {size(limit)}, mesh (data, fsdp, tensor) = "
    f"{plan.mesh}; bytes and Tflop a device and call, `an hour`: activations or explanations of the whole slice"
  )
  return "\n".join([title, _trained(plan), *rows, *_conclusions(plan)])


def _trained(plan: Plan) -> str:
  """What is trained, and how many parameters of each model that is."""
  counts = ", ".join(f"{name.upper()} {n:,} parameters" for name, n in plan.trained.items())
  if plan.lora is None:
    return f"trained: every weight ({counts})"
  targets = ", ".join(plan.lora.targets)
  return (
    f"trained: adapters of rank {plan.lora.rank} on {targets}, and the AR's head ({counts}); their base is frozen in "
    "bfloat16 and lies on the devices once"
  )


def _line(one: Compiled, limit: float) -> tuple[str, ...]:
  """One program's cells, in the order of the head; `!` marks more than the limit."""
  compiled = f"{one.compile_seconds:.0f} s"
  if one.memory is None:
    return (one.program.name, *("-",) * 4, f">{size(one.needed)}", *("-",) * 5, compiled)

  m = one.memory
  return (
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
    f"{3600 * one.program.rows / one.seconds:,.0f}",
    compiled,
  )


def _conclusions(plan: Plan) -> list[str]:
  """What the table shows, in sentences."""
  lines = []
  if not plan.counted:
    lines.append(
      "prompt lengths are those of the reference templates, rounded up: the model's tokenizer is not here"
    )

  for kind in sorted({kind for one in plan.compiled for kind in one.sent}):
    sent = [
      f"{one.program.name} {size(one.sent[kind])}" for one in plan.compiled if one.sent.get(kind)
    ]
    lines.append(f"{kind}: {', '.join(sent)}")

  refused = [one for one in plan.compiled if one.memory is None]
  lines += [f"{one.program.name} is refused: {one.refused}" for one in refused]
  return lines + (_times(plan) if plan.fits else [_shortfall(plan)])


def _shortfall(plan: Plan) -> str:
  worst = max(plan.too_large, key=lambda one: one.needed)
  return (
    f"DOES NOT FIT: {worst.program.name} needs {size(worst.needed)} of "
    f"{size(plan.topology.chip.memory)} a device"
  )


def _times(plan: Plan) -> list[str]:
  lines = ["fits"]
  if plan.rl_steps:
    lines.append(f"RL step at the roofline: {plan.step_seconds:.2f} s")

  # A config that does not say how many documents there are has no length of its whole run.
  if all(one.program.calls for one in plan.compiled):
    hours = plan.chip_hours
    lines.append(
      f"whole run at the roofline, a lower bound: {hours:.0f} chip-hours, "
      f"{hours / plan.topology.count:.1f} hours"
    )
  return lines


def summary(plan: Plan) -> dict:
  """The plan as plain JSON values."""
  return {
    "topology": plan.topology.name,
    "chips": plan.topology.count,
    "mesh": plan.mesh,
    "fits": plan.fits,
    "trained": plan.trained,
    "rank": plan.lora.rank if plan.lora else 0,
    "memory_of_chip": plan.topology.chip.memory,
    "step_seconds": plan.step_seconds,
    "chip_hours": plan.chip_hours,
    "programs": {one.program.name: _program_summary(one) for one in plan.compiled},
  }


def _program_summary(one: Compiled) -> dict:
  return {
    "memory": None if one.memory is None else one.memory._asdict(),
    "needed": one.needed,
    "refused": one.refused,
    "received": one.sent,
    "flops": one.work.flops,
    "bytes": one.work.bytes,
    "seconds": one.seconds,
    "bound": one.bound,
    "rows": one.program.rows,
    "calls": one.program.calls,
    "compile_seconds": one.compile_seconds,
  }
