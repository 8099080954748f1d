"""`nla inspect PATH`: what a model, an AV or AR, a workdir, an activation store, a GGUF or a parquet file is."""

import argparse

from nla_jax.interop.describe import describe, text


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to describe."""
  parser = argparse.ArgumentParser(prog="nla inspect", description=__doc__)
  parser.add_argument(
    "path", nargs="+", help="folder, .gguf or .parquet file, package:NAME, or a hub id in the cache"
  )
  for path in parser.parse_args(arguments).path:
    print(text(describe(path)))
  return 0
