"""`nla serve`: a pair behind HTTP, for Neuronpedia's clients, the reference's client, and a browser."""

import argparse
import importlib
import importlib.util
import os
from pathlib import Path

from nla_jax.cli.command_line import Parser
from nla_jax.errors import NLAError
from nla_jax.evaluation.claims import confidence
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.serving.limits import Limits
from nla_jax.workdir import FOLDERS

_PARTS = ("starlette", "uvicorn")
# Flags of limits: the field, and what it bounds.
_LIMITS = {
  "concurrent": "requests worked on at once; the next one gets 429",
  "rows": "explanations drawn in one batch",
  "positions": "tokens explained in one request",
  "input_chars": "characters of a text or of all messages",
  "new_tokens": "tokens of an explanation",
  "body_bytes": "bytes of a request",
  "request_seconds": "seconds that a request may take",
}


def main(arguments: list[str]) -> int:
  """The subcommand. Raises NLAError before anything is loaded where it can."""
  options = _parser().parse_args(arguments)
  values = {name: getattr(options, name) for name in _LIMITS}
  limits = Limits(**{name: value for name, value in values.items() if value is not None})

  # 1. What can be wrong is said, and the port taken, before the weights are loaded.
  _require_extra()
  serving = importlib.import_module("nla_jax.serving.run")
  secret = serving.secret_of(options.secret_file)
  trust = confidence.load(options.claims) if options.claims else None
  taken = serving.listen(options.host, options.port, secret)

  # 2. The pair.
  with taken:
    process.keep_compiled_programs(_cache())
    nla = load(options.nla, base=options.base, model_adapter=options.model_adapter)
    from nla_jax.serving.reader import Reader
    from nla_jax.serving.server import application
    from nla_jax.serving.service import Service

    reader = Reader(nla, _name(options.nla), limits.rows, whole=not options.no_completion)
    reader.trust = trust
    reader.warm_up()
    service = Service(reader, limits, secret)

    # 3. Requests, until a signal; what runs is finished.
    def started() -> None:
      print(f"nla serve: {options.nla} at {serving.address(taken)}", flush=True)

    serving.run(application(service), taken, limits.request_seconds, started)
    service.close()
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = Parser(prog="nla serve", description=__doc__)
  parser.add_argument(
    "--nla",
    required=True,
    help="package:NAME, a workdir, a folder with av/ and ar/, or an AV's folder or hub id",
  )

  # Where it listens.
  parser.add_argument(
    "--host", default="127.0.0.1", help="address; another than this machine's own needs a secret"
  )
  parser.add_argument("--port", type=int, default=5009, help="0 takes a free one (default 5009)")
  parser.add_argument(
    "--secret-file",
    help="file with the secret that clients send as X-SECRET-KEY; left out, NLA_SECRET of the environment",
  )

  # The target.
  parser.add_argument("--base", help="the target, in place of the one that the pair names")
  parser.add_argument("--model-adapter", help="a LoRA of PEFT on the target, a directory")
  parser.add_argument(
    "--claims",
    metavar="FILE",
    help="metrics.json of this pair's `nla eval --suites=confabulation`: claims can then be weighed",
  )
  parser.add_argument(
    "--no-completion",
    action="store_true",
    help="holds the target's blocks 0..K alone: less memory, but no /completion and no /steer",
  )

  # Limits.
  for name, what in _LIMITS.items():
    default = getattr(Limits, name)
    parser.add_argument(
      f"--max-{name.replace('_', '-')}",
      dest=name,
      type=type(default),
      help=f"{what} (default {default:,})",
    )
  return parser


def _require_extra() -> None:
  """Raises NLAError where what serves is not installed."""
  missing = [name for name in _PARTS if importlib.util.find_spec(name) is None]
  if missing:
    raise NLAError(f"serving needs {' and '.join(missing)}: pip install 'nla_jax[serve]'")


def _name(path: str) -> str:
  """What clients are told: a hub id or a package as it is named, of a folder its last part."""
  folder = Path(path)
  if not folder.exists():
    return path
  # Of a run's export the run's own name.
  return folder.resolve().parent.name if folder.name == FOLDERS["export"] else folder.name


def _cache() -> Path:
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nla_jax" / "compiled"
