"""`nla plan`: whether a run fits machines that are not here, and what it costs."""

import json

import jax
from absl import flags

from nla_jax import files
from nla_jax.cli.command_line import HELP, help_text, parse
from nla_jax.errors import NLAError
from nla_jax.planning.chips import size
from nla_jax.planning.plan import Plan, make_plan, next_that_fits
from nla_jax.planning.suggest import suggest
from nla_jax.planning.text import summary, table
from nla_jax.planning.topology import describe


def define(values: flags.FlagValues) -> None:
  """The flags of `nla plan`."""
  flags.DEFINE_string(
    "topology", None, "such as v5e:4x4, v5p:2x2x4, v6e:8x8*2 or h100:8", flag_values=values
  )
  flags.DEFINE_list(
    "programs", [], "only programs that begin so, such as rl or extract,sft", flag_values=values
  )
  flags.DEFINE_bool(
    "suggest", False, "try mesh shapes and batch sizes, rank those that fit", flag_values=values
  )
  flags.DEFINE_integer("tries", 6, "with --suggest: how many to compile", flag_values=values)
  flags.DEFINE_bool(
    "nearest", True, "where it does not fit, look for the next larger slice", flag_values=values
  )
  flags.DEFINE_string("json", None, "also write the numbers to this file", flag_values=values)


def main(arguments: list[str]) -> int:
  """The subcommand; returns the exit status: 0 where everything fits, 1 where not.

  Raises:
    NLAError: for what a person can mend.
  """
  if any(one in HELP for one in arguments):
    print(help_text("plan", define))
    return 0
  line = parse(define, arguments)
  options, names = line.options, tuple(line.options.programs)
  if line.config is None or options.topology is None or line.words:
    raise NLAError(
      "give --config=FILE.py and --topology=CHIP:SHAPE, and no other word; `nla plan --help` shows how"
    )

  # A TPU that is here stays free: programs are compiled for a description of the other one.
  jax.config.update("jax_platforms", "cpu")
  topology = describe(options.topology)
  if options.suggest:
    print(suggest(line.config, topology, names, options.tries))
    return 0

  plan = make_plan(line.config, topology, names, _say_compiled)
  if not plan.compiled:
    raise NLAError(f"no program begins with {', '.join(names)}")
  print(table(plan))
  if options.json:
    files.write_text(options.json, json.dumps(summary(plan), indent=2) + "\n")
  if not plan.fits and options.nearest:
    print(_nearest(line.config, plan))
  return 0 if plan.fits else 1


def _say_compiled(one) -> None:
  # Compiling takes minutes, so each program is told as soon as it is through.
  print(f"  compiled {one.program.name} in {one.compile_seconds:.0f} s", flush=True)


def _nearest(config, plan: Plan) -> str:
  """A line that names the next larger slice that is enough, or says that there is none."""
  found = next_that_fits(config, plan)
  if found is None:
    return "no larger slice of these chips with this mesh fits"

  # There only the program that needs most was compiled.
  largest = found.compiled[0]
  return (
    f"nearest that fits: --topology={found.topology.name} with --config.mesh.fsdp={found.mesh[1]}: "
    f"{largest.program.name} needs {size(largest.needed)} a device"
  )
