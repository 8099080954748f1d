"""`nla awareness`: how often explanations say that the target thinks it is tested, beside benign use and baselines."""

import json

from nla_jax import files
from nla_jax.auditing.agreement import HALVES, agreement, in_words, labelled
from nla_jax.auditing.awareness import Protocol, measure
from nla_jax.auditing.awareness_form import html, table, to_json
from nla_jax.auditing.grader import DEFAULT, grader_of
from nla_jax.auditing.response_tokens import TOKENS
from nla_jax.auditing.transcripts import Transcript, read_file
from nla_jax.cli.command_line import Parser
from nla_jax.cli.read import compiled_cache
from nla_jax.data import tables
from nla_jax.errors import NLAError
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.progress import say


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to audit or nothing to audit it with."""
  options = _parser().parse_args(arguments)

  # 1. What can be wrong is said before anything is loaded.
  grader = grader_of(options.grader, options.judge)
  if options.agreement:
    for half in HALVES:
      print(f"{half.replace('_', ' ')}: {in_words(agreement(grader, labelled(half)))}\n")
    return 0
  for name in ("nla", "file", "benign"):
    if not getattr(options, name):
      why = "; a rate without the benign null says nothing" if name == "benign" else ""
      raise NLAError(f"--{name} is missing{why}; `nla awareness --help` shows how")
  protocol = Protocol(tokens=options.tokens, seed=options.seed)
  labels = read_labels(options.labels) if options.labels else {}
  audited, benign = (
    _transcripts(options.file, options.limit),
    _transcripts(options.benign, options.limit),
  )

  # 2. The pair, and what it says.
  process.keep_compiled_programs(compiled_cache(), every=True)
  nla = load(options.nla, base=options.base, model_adapter=options.model_adapter)
  found = measure(nla, audited, benign, grader, protocol, labels=labels)

  # 3. What is shown, and what is written.
  if options.html:
    files.write_text(files.here(options.html), html(found))
  print(json.dumps(to_json(found), ensure_ascii=False) if options.json else table(found))
  return 0


def _parser() -> Parser:
  parser = Parser(prog="nla awareness", description=__doc__)
  add = parser.add_argument
  add("--nla", help="package:NAME, a workdir, a folder with av/ and ar/, or an AV's")
  add("--file", help="transcripts to audit: .jsonl, .parquet, or Inspect's .eval")
  add("--benign", help="transcripts of ordinary use, whose rate is printed beside every rate")
  add(
    "--labels", metavar="FILE", help='lines {"id": …, "label": 0 or 1} of what the target believes'
  )

  # What is drawn, and who grades it.
  add("--tokens", type=int, default=TOKENS, help=f"of a transcript (default {TOKENS})")
  add("--limit", type=int, help="transcripts of each file, at most")
  add("--seed", type=int, default=0, help="of the tokens and the draws (default 0)")
  add_graders(add)
  add("--agreement", action="store_true", help="only compare the grader with the hand labels")

  # The target, and what comes out.
  add("--base", help="the target, in place of the one that the pair names")
  add("--model-adapter", help="a LoRA of PEFT on the target, a directory")
  add("--json", action="store_true", help="one JSON object in place of the table")
  add("--html", metavar="FILE", help="also writes a page")
  return parser


def add_graders(add) -> None:
  """Adds the flags that choose a grader."""
  add(
    "--grader", default=DEFAULT, help=f"a grader of the package or a .yaml file (default {DEFAULT})"
  )
  add(
    "--judge",
    metavar="FILE",
    help="a YAML file that names a language model, which grades in place of the rules",
  )


def _transcripts(path: str, limit: int | None) -> list[Transcript]:
  if limit is not None and limit < 1:
    raise NLAError(f"--limit={limit}: at least one transcript has to be read")
  found = []
  for one in read_file(path, lambda name, why: say(f"left out {name}: {why}")):
    found.append(one)
    if len(found) == limit:
      break
  if not found:
    raise NLAError(f"{path} holds no transcript that can be read")
  return found


def read_labels(path: str) -> dict[str, int]:
  """{id: label} of a file of JSON lines. Raises NLAError where a line has none."""
  found = {}
  example = '{"id": "a", "label": 1}'
  for number, line in tables.json_lines(files.expect_file(path, "the file of labels", "name one")):
    row = tables.parse_json_row(line, f"{path} line {number}", example)
    if row.get("label") not in (0, 1) or "id" not in row:
      raise NLAError(f"{path} line {number} is no label; expected {example}")
    found[str(row["id"])] = int(row["label"])
  return found
