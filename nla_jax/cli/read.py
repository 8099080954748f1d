"""`nla read`: what the target thinks at tokens of a text or a conversation, in words."""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nla_jax import files
from nla_jax.autoencoder.text import well_formed
from nla_jax.cli.command_line import Parser
from nla_jax.conversation import positions
from nla_jax.data.corpora.read import read_corpus
from nla_jax.errors import NLAError
from nla_jax.evaluation.claims import confidence
from nla_jax.evaluation.claims.attach import with_confidence
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.reading import form
from nla_jax.reading.reading import Reading

_TOGETHER = 64  # inputs of a file that share batches


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to read or nothing to read it with."""
  parser = Parser(
    prog="nla read",
    description=__doc__,
    epilog=positions.__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  _define(parser)
  options = parser.parse_args(arguments)

  # 1. What can be wrong is said before anything is loaded.
  for name in ("best_of", "samples"):
    if getattr(options, name) < 1:
      flag = f"--{name.replace('_', '-')}"
      raise NLAError(f"{flag}={getattr(options, name)}: at least one explanation has to be drawn")
  model = confidence.load(options.claims) if options.claims else None
  inputs = inputs_of(options, "read")
  first = list(itertools.islice(inputs, _TOGETHER))

  # 2. The pair. Programs that were compiled for an earlier reading are taken from the user's cache.
  process.keep_compiled_programs(compiled_cache(), every=True)
  nla = load(options.nla, base=options.base, model_adapter=options.model_adapter)

  # 3. What is read, so many inputs together that they fill batches.
  drawn = {name: getattr(options, name) for name in ("best_of", "samples", "seed", "greedy")}
  drawn["inputs"] = {"reply": True} if options.reply else {}
  while first:
    names, texts = zip(*first, strict=True)
    for name, reading in zip(names, nla.read(list(texts), options.positions, **drawn), strict=True):
      weighed = (
        reading if model is None else with_confidence(nla, reading, model, seed=options.seed)
      )
      _show(name, weighed, options)
    first = list(itertools.islice(inputs, _TOGETHER))
  if not options.json:
    print(form.CAUTION)
  return 0


def _define(parser: Parser) -> None:
  """The command's arguments."""
  parser.add_argument(
    "text",
    nargs="?",
    metavar="TEXT",
    help="what the target reads; standard input where it and --file are left out",
  )
  parser.add_argument(
    "--nla",
    required=True,
    help="package:NAME, a workdir, a folder with av/ and ar/, or an AV's folder or hub id",
  )
  parser.add_argument(
    "--file",
    help="texts or conversations: JSON lines or parquet (OpenAI's messages, ShareGPT, WildChat, LMSYS), "
    "or paragraphs of a .txt",
  )
  parser.add_argument(
    "--positions", default="last", help="which tokens, as written below (default last)"
  )

  # How each token is explained.
  parser.add_argument(
    "--best-of",
    type=int,
    default=4,
    help="explanations drawn, of which the AR chooses one (default 4)",
  )
  parser.add_argument(
    "--samples", type=int, default=1, help="explanations of each token (default 1)"
  )
  parser.add_argument("--greedy", action="store_true", help="the likeliest words, not a draw")
  parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
  parser.add_argument(
    "--reply", action="store_true", help="begin the assistant's turn behind a conversation"
  )

  # The target, and what comes out.
  parser.add_argument("--base", help="the target, in place of the one that the pair names")
  parser.add_argument("--model-adapter", help="a LoRA of PEFT on the target, a directory")
  parser.add_argument(
    "--claims",
    metavar="FILE",
    help="metrics.json of this pair's evaluation with the suite confabulation: how far each claim can be trusted; "
    "takes twenty times as long",
  )
  parser.add_argument("--json", action="store_true", help="one JSON object an input")


def inputs_of(options, deed: str) -> Iterator[tuple[str, Any]]:
  """(name, text or conversation) of `options.text`, of all in `options.file`, or of standard input.

  Args:
    options: of the command line.
    deed: what is done with them, for messages.

  Raises:
    NLAError: both are given, or there is nothing.
  """
  if options.file is not None and options.text is not None:
    raise NLAError("a text and --file are given: give one of them")
  if options.file is not None:
    path = files.expect_file(options.file, "--file", "name a .jsonl, .parquet or .txt file")
    documents = read_corpus(path)
    return ((one.id, list(one.messages) or one.text) for one in documents)

  text = _standard_input() if options.text is None else options.text
  if not well_formed(text).strip():
    raise NLAError(f"there is no text to {deed}: give it as the last argument or on standard input")
  return iter([("", text)])


def _show(name: str, reading: Reading, options) -> None:
  if options.json:
    named = {"id": name} if name else {}
    print(json.dumps(named | reading.to_json(), ensure_ascii=False))
    return
  if name:
    print(f"== {name}")
  print(form.table(reading))


def _standard_input() -> str:
  """What stands on standard input. Raises NLAError where it is no UTF-8."""
  try:
    return sys.stdin.read()
  except UnicodeDecodeError as error:
    raise NLAError(
      f"standard input is not UTF-8 text ({error.reason} at byte {error.start})"
    ) from error


def compiled_cache() -> Path:
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nla_jax" / "compiled"
