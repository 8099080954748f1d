"""`nla plan`: whether a run fits machines that are not here, and what it costs."""

import json
from pathlib import Path

import jax

from nla_jax.errors import NLAError
from nla_jax.planning.chips import size
from nla_jax.planning.plan import make_plan, next_that_fits
from nla_jax.planning.text import summary, table
from nla_jax.planning.topology import describe


def main(arguments: list[str]) -> int:
  """The command line; returns the exit status: 0 where everything fits, 1 where not."""
  from absl import flags
  from ml_collections import config_flags

  from nla_jax.config import load_config
  from nla_jax.planning.suggest import suggest

  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", None, "configuration file", flag_values=values, sys_argv=["nla", *arguments]
  )
  flags.DEFINE_string(
    "topology", None, "such as v5e:4x4, v5p:2x2x4, v6e:8x8*2 or h100:8", flag_values=values
  )
  flags.DEFINE_list(
    "programs", [], "only programs that begin so, such as `rl` or `extract,sft`", flag_values=values
  )
  flags.DEFINE_bool(
    "suggest", False, "try mesh shapes and batch sizes, rank those that fit", flag_values=values
  )
  flags.DEFINE_integer("tries", 6, "with --suggest: how many to compile", flag_values=values)
  flags.DEFINE_bool(
    "nearest", True, "where it does not fit, look for the next larger slice", flag_values=values
  )
  flags.DEFINE_string("json", None, "also write the numbers to this file", flag_values=values)
  try:
    rest = values(["nla plan", *arguments])
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    raise NLAError(" ".join(str(error).split())[:400]) from error
  if values["config"].value is None or values.topology is None or len(rest) != 1:
    raise NLAError(
      "usage: nla plan --config=FILE.py --topology=CHIP:SHAPE [--suggest] [--programs=rl,…] "
      "[--json=FILE] [--config.key=value …]"
    )
  jax.config.update("jax_platforms", "cpu")  # a TPU that is here stays free
  holder = values["config"]
  config = load_config(
    config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
  )
  topology = describe(values.topology)
  names = tuple(values.programs)
  if values.suggest:
    print(suggest(config, topology, names, values.tries))
    return 0
  report = lambda one: print(
    f"  compiled {one.program.name} in {one.compile_seconds:.0f} s", flush=True
  )
  plan = make_plan(config, topology, names, report)
  if not plan.compiled:
    raise NLAError(f"no program begins with {', '.join(names)}")
  print(table(plan))
  if values.json:
    Path(values.json).write_text(json.dumps(summary(plan), indent=2) + "\n")
  if plan.fits or not values.nearest:
    return 0 if plan.fits else 1
  found = next_that_fits(config, plan)
  print(
    "no larger slice of these chips with this mesh fits"
    if found is None
    else f"nearest that fits: --topology={found.topology.name} with --config.mesh.fsdp={found.mesh[1]}: "
    f"{found.compiled[0].program.name} needs {size(found.compiled[0].needed)} a device"
  )
  return 1
