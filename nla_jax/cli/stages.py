"""`nla run` and `nla STAGE`: from the command line to the stages of a run."""

from absl import flags

from nla_jax.cli.command_line import HELP, help_text, parse
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed
from nla_jax.workdir import STAGES


def define(values: flags.FlagValues) -> None:
  """The flags of every stage."""
  flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
  flags.DEFINE_string(
    "suites",
    None,
    "of eval: suites that answer a question, comma-separated (config.suites.preset: how thoroughly)",
    flag_values=values,
  )
  flags.DEFINE_bool(
    "over_training",
    False,
    "of eval: the suites on every kept step of RL (config.snapshot_every), before and after it, against FVE",
    flag_values=values,
  )

  # Which process of several this is.
  flags.DEFINE_bool(
    "distributed",
    False,
    "several processes, as SLURM, Kubernetes, MPI or the TPU pod says",
    flag_values=values,
  )
  flags.DEFINE_string(
    "coordinator", None, "elsewhere: host:port of the first process", flag_values=values
  )
  flags.DEFINE_integer("processes", None, "… how many processes there are", flag_values=values)
  flags.DEFINE_integer("process", None, "… which of them this is", flag_values=values)
  flags.DEFINE_integer(
    "heartbeat", 60, "seconds of silence after which a process is dead", flag_values=values
  )


def main(arguments: list[str]) -> int:
  """Runs a stage, or all of them.

  Args:
    arguments: all that stands after `nla`, the stage's name among them.

  Raises:
    NLAError: for what a person can mend.
  """
  if any(one in HELP for one in arguments):
    print(help_text(next((one for one in arguments if one in STAGES), "run"), define))
    return 0

  line = parse(define, arguments)
  options = line.options
  if line.config is None or options.workdir is None or len(line.words) != 1:
    raise NLAError("give one stage, --config=FILE.py and --workdir=FOLDER; `nla --help` shows how")

  # Before anything asks jax for its devices.
  if options.distributed or options.coordinator:
    distributed.initialize(
      options.coordinator, options.processes, options.process, options.heartbeat
    )
  (name,) = line.words
  if name != "run" and name not in STAGES:
    raise NLAError(f"{name!r} is no stage; expected run or one of {', '.join(STAGES)}")

  if options.suites is not None:
    if name not in ("run", "eval"):
      raise NLAError(f"--suites is of `nla eval` and `nla run`, and this is {name}; leave it out")
    line.config.suites.names = options.suites
  if options.over_training and name != "eval":
    raise NLAError(f"--over_training is of `nla eval`, and this is {name}; leave it out")

  # Imported here, since what a stage needs takes seconds to import.
  from nla_jax.run import over_training, stages
  from nla_jax.run.run import begin

  distributed.watch_for_preemption()
  with begin(line.config, options.workdir) as run:
    if name == "run":
      stages.run_all(run)
    elif options.over_training:
      over_training.evaluate(run)
    elif name == "rl" and line.config.init:
      stages.run_stages(run, ("sft", "rl"))  # a pair to begin with takes the place of SFT
    else:
      stages.run_stages(run, (name,))
  return 0
