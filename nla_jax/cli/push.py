"""`nla push DIR REPO`: uploads an exported AV or AR to the hub."""

from nla_jax.cli.command_line import Parser
from nla_jax.interop.pairs.push import push


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError for what a person can mend."""
  parser = Parser(prog="nla push", description=__doc__)
  parser.add_argument("directory", metavar="DIR", help="an AV or AR, or a folder with av/ and ar/")
  parser.add_argument(
    "repository", metavar="REPO", help="owner/name; -av and -ar are added for a folder with both"
  )
  parser.add_argument("--private", action="store_true", help="a repository that is made is private")
  options = parser.parse_args(arguments)

  for name in push(options.directory, options.repository, private=options.private):
    print(f"pushed to {name}")
  return 0
