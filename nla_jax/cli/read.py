"""`nla read`: what the target thinks at a token of a text, in words."""

import json
import os
import sys
from pathlib import Path

from nla_jax.autoencoder.nla import NLA, Explanation
from nla_jax.autoencoder.text import encode, in_context, well_formed
from nla_jax.cli.command_line import Parser
from nla_jax.errors import NLAError
from nla_jax.loading import load
from nla_jax.parallel import process

_SHOWN = 48  # characters of the text before a token


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to read or nothing to read it with."""
  parser = Parser(prog="nla read", description=__doc__)
  parser.add_argument(
    "text",
    nargs="?",
    metavar="TEXT",
    help="what the target reads; standard input where it is left out",
  )
  parser.add_argument(
    "--nla",
    required=True,
    help="package:NAME, a workdir, a folder with av/ and ar/, or an AV's folder or hub id",
  )
  parser.add_argument(
    "--positions", default="last", help="last, all, or indices of tokens: 5,12,-1 (default last)"
  )
  parser.add_argument(
    "--best-of",
    type=int,
    default=4,
    help="explanations drawn, of which the AR chooses one (default 4)",
  )
  parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
  parser.add_argument("--base", help="the target, in place of the one that the pair names")
  parser.add_argument("--model-adapter", help="a LoRA of PEFT on the target, a directory")
  parser.add_argument("--json", action="store_true", help="one JSON object a position")
  options = parser.parse_args(arguments)

  # 1. What can be wrong is said before anything is loaded.
  if options.best_of < 1:
    raise NLAError(f"--best-of={options.best_of}: at least one explanation has to be drawn")
  text = _standard_input() if options.text is None else options.text
  if not well_formed(text).strip():
    raise NLAError("there is no text to read: give it as the last argument or on standard input")

  # 2. The pair. Programs that were compiled for an earlier reading are taken from the user's cache.
  process.keep_compiled_programs(_cache())
  nla = load(options.nla, base=options.base, model_adapter=options.model_adapter)
  ids = encode(nla.pair.tokenizer, text, special=True)
  positions = _positions(options.positions, len(ids))

  # 3. What is read.
  found = nla.read(text, positions, best_of=options.best_of, seed=options.seed)
  for position, explanation in zip(positions, found):
    show = _json if options.json else _table
    print(show(nla, ids, position, explanation, options.best_of))
  return 0


def _standard_input() -> str:
  """What stands on standard input. Raises NLAError where it is no UTF-8."""
  try:
    return sys.stdin.read()
  except UnicodeDecodeError as error:
    raise NLAError(
      f"standard input is not UTF-8 text ({error.reason} at byte {error.start})"
    ) from error


def _cache() -> Path:
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nla_jax" / "compiled"


def _positions(wanted: str, length: int) -> list[int]:
  """Indices of tokens, from 0. Raises NLAError where they are no indices of this text."""
  if wanted == "last":
    return [length - 1]
  if wanted == "all":
    return list(range(length))
  try:
    indices = [int(one) for one in wanted.split(",")]
  except ValueError:
    raise NLAError(
      f"--positions={wanted}: expected last, all, or indices of tokens such as 5,12,-1"
    ) from None

  outside = [i for i in indices if not -length <= i < length]
  if outside:
    raise NLAError(f"--positions: this text has {length} tokens, and {outside[0]} is none of them")
  return [i % length for i in indices]


def _table(nla: NLA, ids: list[int], position: int, explanation: Explanation, best_of: int) -> str:
  tokenizer = nla.pair.tokenizer
  before, token, _ = in_context(tokenizer, ids, position, len(ids), 0, special=True)
  cut = "…" if len(before) > _SHOWN else ""
  fve = "unknown" if explanation.fve is None else f"{explanation.fve:.2f}"

  if explanation.text is None:
    words, score = f"(no explanation: {explanation.reason})", "without a text there is no score"
  else:
    words, score = explanation.text, f"FVE {fve}, cosine {explanation.cosine:.2f}"
  lines = [line for line in words.splitlines() if line.strip()]
  return "\n".join(
    [
      f"token {position}  {cut}{before[-_SHOWN:]!r} → {token!r}",
      *(f"  {line}" for line in lines),
      f"  {score}; the best of {best_of} by the AR",
      "",
    ]
  )


def _json(nla: NLA, ids: list[int], position: int, explanation: Explanation, best_of: int) -> str:
  return json.dumps(
    {
      "position": position,
      "token": in_context(nla.pair.tokenizer, ids, position, 0, 0, special=True)[1],
      "explanation": explanation.text,
      "fve": explanation.fve,
      "cosine": explanation.cosine,
      "answer": explanation.answer,
      "reason": explanation.reason,
      "best_of": best_of,
    },
    ensure_ascii=False,
  )
