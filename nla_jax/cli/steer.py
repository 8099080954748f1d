"""`nla steer`: what the target writes once the explanation of a token is edited, beside three controls."""

import itertools
import json
from pathlib import Path

from nla_jax import files
from nla_jax.cli.command_line import Parser
from nla_jax.cli.read import compiled_cache, inputs_of
from nla_jax.errors import NLAError
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.reading.edits import check_edit
from nla_jax.reading.steer import MODES, SIZES, STRENGTHS, WHERE, Options, strengths_of
from nla_jax.reading.steered import MEANING, Arm, Steered

_SHOWN = 60  # characters of a continuation in the table


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to steer or nothing to steer it with."""
  options = _parser().parse_args(arguments)

  # 1. What can be wrong is said before anything is loaded.
  edit = _edit(options.edit, options.explanation_file)
  strengths = strengths_of(_numbers(options.strength), options.mode)
  how = {
    name: getattr(options, name)
    for name in ("mode", "where", "size", "tokens", "samples", "greedy", "best_of")
  }
  how["words"] = [word.strip() for word in options.words.split(",") if word.strip()]
  how["explanation"] = options.explanation
  Options(**how).drawing(options.seed)
  inputs = inputs_of(options, "steer")
  first = list(itertools.islice(inputs, 2))
  if options.plot and len(first) > 1:
    raise NLAError(
      f"--plot is one picture, and {options.file} holds several inputs: give one of them"
    )

  # 2. The pair, and what it does.
  process.keep_compiled_programs(compiled_cache(), every=True)
  nla = load(options.nla, base=options.base, model_adapter=options.model_adapter)

  # 3. What is shown of each input, and what is written.
  for name, what in itertools.chain(first, inputs):
    found = nla.steer(
      what, options.position, edit=edit, strength=strengths, seed=options.seed, **how
    )
    if options.plot:
      files.write_text(files.here(options.plot), found.to_svg())
    if options.json:
      named = {"id": name} if name else {}
      print(json.dumps(named | found.to_json(), ensure_ascii=False))
    else:
      print(*([f"== {name}"] if name else []), _table(found), sep="\n")
  return 0


def _parser() -> Parser:
  parser = Parser(prog="nla steer", description=__doc__)
  add = parser.add_argument
  add(
    "text",
    nargs="?",
    metavar="TEXT",
    help="what the target continues; standard input where it and --file are left out",
  )
  add("--file", help="what is continued, one after another, as for `nla read --file`")
  add("--nla", required=True, help="package:NAME, a workdir, a folder with av/ and ar/, or an AV's")
  add(
    "--position",
    default="last",
    help="the token that is explained: last, 12, end:WORDS, … (default last)",
  )
  add(
    "--edit",
    action="append",
    default=[],
    metavar="OLD=NEW",
    help="a word of the explanation and what replaces it; several times for several words",
  )
  add("--explanation-file", metavar="FILE", help="a whole new explanation, in place of --edit")
  add("--explanation", metavar="TEXT", help="what is edited, in place of what is read there")

  shown = ",".join(f"{strength:g}" for strength in STRENGTHS)
  add(
    "--strength", default=shown, help=f"lengths of the residual, several at once (default {shown})"
  )
  add(
    "--mode",
    choices=list(MODES),
    default="add",
    help="add the change, or replace the direction (default add)",
  )
  add(
    "--where",
    choices=WHERE,
    default="position",
    help="which tokens take the vector (default position)",
  )
  add("--size", choices=SIZES, default="residual", help="as of which --mode=replace is patched in")
  add("--tokens", type=int, default=32, help="new tokens of a continuation (default 32)")
  add("--samples", type=int, default=1, help="continuations of each vector (default 1)")
  add("--greedy", action="store_true", help="the likeliest tokens instead of a draw")
  add("--words", default="", help="words, with commas, whose next-token probability is shown too")
  add(
    "--best-of", type=int, default=4, help="explanations drawn, of which the AR chooses (default 4)"
  )
  add("--seed", type=int, default=0, help="of all draws (default 0)")
  add("--base", help="the target, in place of the one that the pair names")
  add("--model-adapter", help="a LoRA of PEFT on the target, a directory")
  add("--json", action="store_true", help="one JSON object an input")
  add("--plot", metavar="FILE.svg", help="writes effect against strength as a picture")
  return parser


def _edit(pairs: list[str], file: str | None) -> dict[str, str] | str:
  """What --edit or --explanation-file ask for. Raises NLAError where it is neither or both."""
  if bool(pairs) == bool(file):
    raise NLAError("give either --edit=OLD=NEW, once or several times, or --explanation-file=FILE")
  if file:
    path = Path(files.here(file))
    files.expect_file(path, "new explanation", "give a text file, or words with --edit=OLD=NEW")
    try:
      edit = path.read_text("utf-8").strip()
    except UnicodeDecodeError as error:
      raise NLAError(f"{path}: not UTF-8 text (byte {error.start})") from error
    check_edit(edit)
    return edit

  bad = [pair for pair in pairs if "=" not in pair]
  if bad:
    raise NLAError(f"--edit={bad[0]}: expected OLD=NEW, such as --edit=Paris=Rome")
  edit = dict(pair.split("=", 1) for pair in pairs)
  check_edit(edit)
  return edit


def _numbers(wanted: str) -> list[float]:
  try:
    return [float(one) for one in wanted.split(",")]
  except ValueError:
    raise NLAError(f"--strength={wanted}: expected numbers such as 0.5,1,2") from None


def _table(found: Steered) -> str:
  """What was edited, and a line for each vector at each strength."""
  scored = list(found.tokens)
  lines = [
    f"token {found.position}, after block {found.layer}; {found.mode} at {len(found.positions)} token(s), "
    f"where={found.where}",
    *(f"  - {line}" for line in found.explanation.splitlines() if line.strip()),
    *(f"  + {line}" for line in found.edited.splitlines() if line.strip()),
    f"  the AR's directions of both have cosine {found.cosine:.2f}",
    "",
    "    α  " + "".join(f"{word[:10]:>11}" for word in scored) + "     KL  what the target writes",
    _line(found.unsteered, scored, "the model as it is"),
  ]
  for arm in found.arms:
    lines.append(_line(arm, scored, MEANING[arm.name]))
  said = "of each word: change of its next-token log-probability, in nats; of the model as it is: the log-probability"
  return "\n".join([*lines, "", said])


def _line(arm: Arm, scored: list[str], meaning: str) -> str:
  shown = arm.changes if arm.name in MEANING else arm.words
  numbers = "".join(f"{shown[word]:>11.2f}" for word in scored)
  texts = [" ".join(text.split())[:_SHOWN] for text in arm.continuations]
  return f"{arm.strength:>5g}  {numbers} {arm.kl:>6.2f}  {meaning}: {' | '.join(map(repr, texts))}"
