"""`nla organism`: makes a model whose hidden fact, motive or belief is known, checks it and writes its card."""

from absl import flags

from nla_jax.cli.command_line import HELP, help_text, parse
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed


def define(values: flags.FlagValues) -> None:
  """The command's own flag."""
  flags.DEFINE_string("workdir", None, "folder of the organism", flag_values=values)


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError for what a person can mend. A failed check is in the card, and no error."""
  if any(one in HELP for one in arguments):
    print(help_text("organism", define))
    return 0
  line = parse(define, arguments)
  if line.config is None or line.options.workdir is None or line.words:
    raise NLAError(
      "give --config=configs/organisms/NAME.py and --workdir=FOLDER; `nla organism --help` shows how"
    )
  if "held_out_quirks" not in line.config:
    raise NLAError("this config is of no organism: take one of configs/organisms/")

  # Imported here, since what training needs takes seconds to import.
  from nla_jax.organisms.make import make

  # A training that is stopped saves first.
  distributed.watch_for_preemption()
  card = make(line.config, line.options.workdir)
  print(f"{line.options.workdir}/README.md: {'passed' if card['passed'] else 'failed'}")
  return 0
