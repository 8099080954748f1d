"""`nla`: one subcommand a stage. `nla run --config=configs/smollm2_135m.py --workdir=runs/first`.

Config keys are set as --config.key=value; a preset of the config file is chosen with --config.preset=name.
"""

import importlib
import os
import sys
from pathlib import Path

USAGE = """usage: nla STAGE --config=FILE.py --workdir=FOLDER [--config.key=value …]

stages, in order: extract  teach  sft  rl  eval  export        nla run does them all
A stage that is done is skipped; one that was stopped (SIGTERM saves first) goes on where it was.
Several processes: --distributed under SLURM, Kubernetes, MPI or on a TPU pod; elsewhere
--coordinator=HOST:PORT --processes=N --process=I.

besides: inspect PATH    what a model, a workdir, a store, a GGUF or a parquet file is, and what it lacks
         convert FROM TO parquet files of the reference pipeline to and from an activation store
         push DIR REPO   an exported AV or AR to the hub
         plan --config=… --topology=v5p:2x2x4   whether a run fits a slice that is not here, and what it costs
                         nla COMMAND --help shows how
"""
COMMANDS = {
  "inspect": "nla_jax.cli.inspect",
  "convert": "nla_jax.cli.convert",
  "push": "nla_jax.cli.push",
  "plan": "nla_jax.cli.plan",
}


def _parse(arguments: list[str]):
  """(stage, config, workdir) from the command line, by absl and ml_collections. Joins other processes if asked."""
  from absl import flags
  from ml_collections import config_flags

  from nla_jax.config import load_config
  from nla_jax.errors import NLAError

  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", None, "configuration file", flag_values=values, sys_argv=["nla", *arguments]
  )
  flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
  flags.DEFINE_bool(
    "distributed", False, "several processes, as the cluster says", flag_values=values
  )
  flags.DEFINE_string("coordinator", None, "host:port of the first process", flag_values=values)
  flags.DEFINE_integer("processes", None, "how many processes there are", flag_values=values)
  flags.DEFINE_integer("process", None, "which of them this is", flag_values=values)
  flags.DEFINE_integer(
    "heartbeat", 60, "seconds of silence after which a process is dead", flag_values=values
  )
  names = [argument for argument in arguments if argument.split("=")[0] in ("--config", "-config")]
  if names and "=" in names[-1] and not Path(names[-1].split("=", 1)[1]).is_file():
    raise NLAError(
      f"no config file at {names[-1].split('=', 1)[1]}; configs/smollm2_135m.py is the one to start from"
    )
  try:
    rest = values(["nla", *arguments])
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise NLAError(
      " ".join(str(error).split())[:400] + "; nla_jax/config.py lists all keys"
    ) from error
  if values["config"].value is None or values.workdir is None or len(rest) != 2:
    raise NLAError("give one stage, --config=FILE.py and --workdir=FOLDER; `nla --help` shows how")
  holder = values["config"]
  config = load_config(
    config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
  )
  if values.distributed or values.coordinator:
    from nla_jax.parallel import distributed

    distributed.initialize(values.coordinator, values.processes, values.process, values.heartbeat)
  return rest[1], config, Path(values.workdir)


def main(arguments: list[str] | None = None) -> int:
  """Runs one command; returns the exit status: 0, or 2 for a mistake that one line explains."""
  arguments = sys.argv[1:] if arguments is None else arguments
  if not arguments or arguments[0] in ("-h", "--help", "help"):
    print(USAGE, end="")
    return 0
  from nla_jax.errors import NLAError
  from nla_jax.parallel import distributed

  workdir = None
  os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
  try:
    if arguments[0] in COMMANDS:
      return importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:])
    stage, config, workdir = _parse(arguments)
    from nla_jax.run import stages
    from nla_jax.run.run import begin

    if stage != "run" and stage not in stages.STAGES:
      raise NLAError(f"{stage!r} is no stage; expected run or one of {', '.join(stages.STAGES)}")
    distributed.watch_for_preemption()
    run = begin(config, workdir)
    if stage == "run":
      stages.run_all(run)
    else:  # with a pair to begin from there is no SFT, only its folder
      stages.run_stages(run, ("sft", "rl") if stage == "rl" and config.init else (stage,))
  except NLAError as error:
    print(f"nla: {error}", file=sys.stderr)
    return 2
  except distributed.PreemptedError as stop:
    print(f"nla: {stop}; the same command goes on from there", file=sys.stderr)
  except OSError as error:
    if error.errno is None:
      raise
    print(
      f"nla: {error.strerror}: {error.filename or workdir}; what was finished is kept, run the same command again "
      "when this is mended",
      file=sys.stderr,
    )
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
