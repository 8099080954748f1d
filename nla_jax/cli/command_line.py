"""Reading a command line: with a config file (absl flags and ml_collections), or without one (argparse).

Both answer `--help` with a text and the status 0, and turn a mistake into an NLAError of one line.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from nla_jax.cli.commands import COMMANDS, usage_of
from nla_jax.config import START_FROM, load_config
from nla_jax.errors import NLAError
from nla_jax.files import expect_file, here

HELP = ("-h", "--help")
_CONFIG_FLAGS = ("--config", "-config")
_CONFIG_HELP = (
  ("--config=FILE.py", "a config: one of configs/, or a copy of one"),
  ("--config.preset=NAME", "one of the presets of that file"),
  (
    "--config.KEY=VALUE",
    "sets a key, such as --config.rl.steps=100; nla_jax/config.py lists all keys",
  ),
)


class CommandLine(NamedTuple):
  """What was asked for.

  Attributes:
    config: of the file, with its preset and the keys that were set; None where no file was named.
    options: the command's own flags, as attributes.
    words: the arguments that are no flags.
  """

  config: ConfigDict | None
  options: flags.FlagValues
  words: list[str]


def parse(define: Callable[[flags.FlagValues], None], arguments: list[str]) -> CommandLine:
  """Reads a command line with a config.

  Args:
    define: defines the command's own flags.
    arguments: all that stands after `nla`.

  Raises:
    NLAError: a flag or a key of the config is unknown or has a wrong value, or there is no config file.
  """
  values, arguments = flags.FlagValues(), [_config_at_home(one) for one in arguments]
  config_flags.DEFINE_config_file(
    "config", None, "configuration file", flag_values=values, sys_argv=["nla", *arguments]
  )
  define(values)
  _require_config_file(arguments)

  try:
    words = values(["nla", *arguments])[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    reason = " ".join(str(error).split())[:400]
    raise NLAError(f"{reason}; nla_jax/config.py lists all keys") from error

  holder, config = values["config"], None
  if holder.value is not None:
    # Once more, since a preset has to be set before the keys of the command line.
    config = load_config(
      config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
    )
  return CommandLine(config, values, words)


def _config_at_home(argument: str) -> str:
  """The argument, with the home folder in place of `~` where it names the config file."""
  flag, equals, path = argument.partition("=")
  return f"{flag}={here(path)}" if equals and flag in _CONFIG_FLAGS else argument


def _require_config_file(arguments: list[str]) -> None:
  # ml_collections says only that it could not load a module.
  named = [one for one in arguments if one.split("=")[0] in _CONFIG_FLAGS]
  if named and "=" in named[-1]:
    expect_file(named[-1].split("=", 1)[1], "the config file", START_FROM)


def help_text(name: str, define: Callable[[flags.FlagValues], None]) -> str:
  """What `nla NAME --help` prints for a command with a config: its usage, its summary and every flag."""
  values = flags.FlagValues()
  define(values)
  lines = [*_CONFIG_HELP]
  for flag in map(values.__getitem__, values):
    if flag.boolean:
      lines.append((f"--{'[no]' * flag.default}{flag.name}", flag.help))
      continue
    default = f" (default {flag.default})" if flag.default not in (None, []) else ""
    lines.append((f"--{flag.name}=…", flag.help + default))

  width = max(len(flag) for flag, _ in lines)
  shown = [f"  {flag:<{width}}  {what}" for flag, what in lines]
  return "\n".join([usage_of(name), "", COMMANDS[name].summary, "", *shown])


class Parser(argparse.ArgumentParser):
  """A parser for a command without a config, whose mistakes are NLAErrors."""

  def error(self, message: str) -> None:
    """Raises NLAError instead of printing the whole usage."""
    raise NLAError(f"{message}; `{self.prog} --help` shows how")
