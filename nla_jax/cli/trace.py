"""`nla trace`: which training examples are like what a model did, over an index of the corpus."""

import json
from pathlib import Path

from nla_jax import files
from nla_jax.cli.command_line import Parser
from nla_jax.cli.read import compiled_cache
from nla_jax.data.corpora.read import read_corpus
from nla_jax.errors import NLAError
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.tracing import index as indexes
from nla_jax.tracing.trace import MEANING, incident, phrase, precisions, to_json, trace

_SHOWN = 90  # characters of an example in the table


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where there is nothing to look for, or nothing to look in."""
  options = _parser().parse_args(arguments)

  # 1. What can be wrong is said before anything is loaded.
  if options.text is not None and options.incident is not None:
    raise NLAError("a phrase and --incident are given: give one of them")
  if options.incident is not None and not options.nla:
    raise NLAError("--incident has to be read: name the pair with --nla")
  if options.k < 1:
    raise NLAError(f"--k={options.k}: at least one example has to be looked for")
  planted = _planted(options.planted)
  what = []
  if options.incident is not None:
    path = files.expect_file(options.incident, "--incident", "name a .jsonl or .txt file")
    what = [list(one.messages) or one.text for one in read_corpus(path)]

  # 2. The index, made or gone on with.
  process.keep_compiled_programs(compiled_cache(), every=True)
  nla = load(options.nla, model_adapter=options.model_adapter) if options.nla else None
  if options.corpus:
    making = indexes.Making(
      positions=options.positions,
      max_tokens=options.max_tokens,
      explanations=not options.no_explanations,
    )
    indexes.make_index(options.corpus, options.index, nla, making)
  index = indexes.Index(options.index)
  if options.text is None and not what:
    print(f"{options.index}: {len(index):,} examples, embedded by {index.embedder}")
    return 0

  # 3. What is most like it.
  name, embed = indexes.embedder()
  if name != index.embedder:
    raise NLAError(
      f"the index was embedded by {index.embedder}, and here is {name}: install what it was made with, or make it anew"
    )

  query = incident(nla, what, index) if what else phrase(options.text)
  found = trace(index, query, options.k, embed)
  scores = precisions(index, found, planted, options.k) if planted else {}
  shown = to_json(index, found)
  print(json.dumps({"hits": shown, "precision": scores}) if options.json else _table(shown, scores))
  return 0


def _parser() -> Parser:
  parser = Parser(prog="nla trace", description=__doc__)
  add = parser.add_argument
  add("text", nargs="?", metavar="PHRASE", help="a phrase or an explanation")
  add("--index", required=True, help="folder of the index")
  add("--corpus", help="training examples to index, as `config.corpus` of `nla run` names them")
  add(
    "--nla", help="the pair that reads examples and incidents; without it words alone are indexed"
  )
  add(
    "--model-adapter", help="a LoRA of PEFT on the target, such as an organism's training/adapter"
  )
  add("--incident", metavar="FILE", help="texts or conversations in which it happened")

  # How examples are read.
  add("--positions", default="last", help="which token of an example is read (default last)")
  add("--max-tokens", type=int, default=128, help="examples are cut to this length (default 128)")
  add("--no-explanations", action="store_true", help="index activations alone, much faster")

  # What comes out.
  add("--k", type=int, default=10, help="how many examples (default 10)")
  add("--planted", metavar="FILE", help="ids that should be found, one a line: precision at k")
  add("--json", action="store_true", help="one JSON object")
  return parser


def _planted(path: str | None) -> list[str]:
  if path is None:
    return []
  found = files.expect_file(path, "--planted", "name a file with one id a line")
  ids = [line.strip() for line in Path(found).read_text(encoding="utf-8").splitlines()]
  ids = [one for one in ids if one]

  if not ids:
    raise NLAError(f"--planted={path} holds no id; expected one a line")
  return ids


def _table(shown: dict[str, list[dict]], scores: dict[str, float]) -> str:
  lines = []
  for name, hits in shown.items():
    precision = f"   precision {scores[name]:.2f}" if name in scores else ""
    lines.append(f"{MEANING[name]}{precision}")
    for hit in hits:
      # One line each: examples may be of many.
      text = " ".join(hit["text"].split())[:_SHOWN]
      lines.append(f"  {hit['score']:7.3f}  {hit['id']:<12}  {text}")
    lines.append("")
  return "\n".join(lines).rstrip()
