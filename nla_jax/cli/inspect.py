"""`nla inspect PATH`: what a model, an AV or AR, a workdir, an activation store, a GGUF or a parquet file is."""

from pathlib import Path

from nla_jax import files
from nla_jax.cli.command_line import Parser
from nla_jax.interop.describe import describe, text
from nla_jax.workdir import CONFIG, is_run_config, wrong_format


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to describe."""
  parser = Parser(prog="nla inspect", description=__doc__)
  parser.add_argument(
    "path", nargs="+", help="folder, .gguf or .parquet file, package:NAME, or a hub id in the cache"
  )
  parser.add_argument(
    "--chat-template",
    default="",
    help="for a model, in place of its tokenizer's: a file with a template of Jinja, or the name of one of its own; as "
    "--config.prompts.chat_template",
  )

  options = parser.parse_args(arguments)
  for path in options.path:
    print(text(describe(path, options.chat_template)))

    # A workdir of another version can still be described; that it cannot be used is said beside it.
    file = Path(files.here(path)) / CONFIG
    config = files.read_json(file)
    if is_run_config(config) and wrong_format(file, config):
      print(f"  of another version: {wrong_format(file, config)}")
  return 0
