"""`nla`: one subcommand a stage, and some more. `nla run --config=configs/smollm2_135m.py --workdir=runs/first`.

Config keys are set as --config.key=value; a preset of the config file is chosen with --config.preset=name.
"""

import importlib
import sys

from nla_jax.cli.command_line import HELP
from nla_jax.cli.commands import COMMANDS, usage
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed, process

# Of a run that was stopped and saved: EX_TEMPFAIL of sysexits.h, so that `nla rl … && next` does not go on and a
# launcher can tell it from an end and from a failure.
STOPPED = 75


def main(arguments: list[str] | None = None) -> int:
  """Runs one command; returns the exit status.

  0 is a finished command, 2 a mistake that one line explains, `STOPPED` a run that SIGTERM stopped and that the same
  command continues, and 130 what a person interrupted.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  if not arguments or arguments[0] in (*HELP, "help"):
    print(usage(), end="")
    return 0

  process.quiet_transformers()
  try:
    return _run(arguments)
  except NLAError as error:
    # A path may hold the end of a line, and a mistake is one line.
    print(f"nla: {error}".replace("\n", "\\n"), file=sys.stderr)
    return 2
  except distributed.PreemptedError as stop:
    print(f"nla: {stop}; the same command continues from there", file=sys.stderr)
    return STOPPED
  except KeyboardInterrupt:
    print(
      "nla: interrupted; the same command continues from what was saved last (SIGTERM saves first)",
      file=sys.stderr,
    )
    return 130
  except OSError as error:
    if error.errno is None:  # raised by a library, not by the system: a traceback says more
      raise
    print(
      f"nla: {error.strerror}: {error.filename or _workdir(arguments)}; what was finished is kept, run the "
      "same command again when this is mended",
      file=sys.stderr,
    )
    return 2


def _run(arguments: list[str]) -> int:
  command = COMMANDS.get(arguments[0])
  # Flags may stand before a stage's name, so what is no other command is read as a stage's line.
  if command is None or command.module == "stages":
    return importlib.import_module("nla_jax.cli.stages").main(arguments)

  module = importlib.import_module(f"nla_jax.cli.{command.module}")
  try:
    return module.main(arguments[1:])
  except SystemExit as done:  # argparse ends so after it has printed a help text
    return done.code or 0


def _workdir(arguments: list[str]) -> str:
  named = [one.split("=", 1)[1] for one in arguments if one.startswith("--workdir=")]
  return named[-1] if named else "the output"


if __name__ == "__main__":
  sys.exit(main())
