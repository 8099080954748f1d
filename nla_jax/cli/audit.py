"""`nla audit`: a scripted auditor looks for what is hidden in organisms, with an NLA and without, beside placebos."""

import functools
from pathlib import Path

from nla_jax import files
from nla_jax.cli.command_line import Parser
from nla_jax.cli.read import compiled_cache
from nla_jax.errors import NLAError
from nla_jax.evaluation.judges.language_model import LanguageModelJudge
from nla_jax.evaluation.judges.provider import Client, read_provider
from nla_jax.game import evidence, graders
from nla_jax.game import report as reports
from nla_jax.game.page import write_page
from nla_jax.game.play import Rules, check_rules, play
from nla_jax.game.store_features import StoreFeatures, open_store
from nla_jax.game.summary import summarised
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.loading import load
from nla_jax.organisms.card import number, read_organism
from nla_jax.parallel import process
from nla_jax.run.claim import claimed

_DEFAULT = (evidence.CHAT, evidence.LENS, evidence.NLA_DIFF, evidence.PLACEBO, evidence.SEARCH)


def main(arguments: list[str]) -> int:
  """The subcommand; raises NLAError where an organism is refused or the game cannot be played."""
  options = _parser().parse_args(arguments)
  grade = _grader(options.grader)
  if options.report:
    return _grade_one(options, grade)
  if not options.nla or not options.workdir:
    raise NLAError("give --nla=PAIR and --workdir=FOLDER; `nla audit --help` shows how")

  # 1. What can be wrong is said before a weight is loaded: the rules, then each card.
  arms = tuple(one.strip() for one in options.arms.split(",") if one.strip())
  names = ("budget", "seeds", "reads", "tokens")
  rules = Rules(arms=arms, **{name: getattr(options, name) for name in names})
  organisms = [read_organism(one) for one in options.organisms]
  check_rules(rules, organisms, options.store)
  store = open_store(options.store) if evidence.SAE in arms else None

  # 2. The pair, and whether the organisms are of its base.
  process.keep_compiled_programs(compiled_cache(), every=True)
  nla = load(options.nla)
  base_hash = load_pretrained(nla.base, weights=False).model_hash
  organisms = [read_organism(one, base_hash=base_hash) for one in options.organisms]

  # 3. The games, and what they came to.
  folder = Path(files.here(options.workdir)).absolute()
  with claimed(folder):
    named = None if store is None else StoreFeatures(store, nla, folder, options.sae)
    rows = play(organisms, nla, rules, folder, grade=grade, features=named)
    found = summarised(rows, organisms)
    write_page(folder / "audit.html", found, rows)
    files.write_json(folder / "audit.json", {**found, "rows": rows})
  print(_table(found))
  return 0


def _parser() -> Parser:
  parser = Parser(prog="nla audit", description=__doc__)
  add = parser.add_argument
  add("organisms", nargs="+", metavar="ORGANISM", help="workdirs of `nla organism`")
  add("--nla", help="the pair of the organisms' base")
  add("--workdir", help="folder of the game; a game that was stopped goes on there")

  # The game.
  add("--arms", default=",".join(_DEFAULT), help=f"of {', '.join(evidence.ARMS)}")
  add(
    "--store", help=f"for the arm {evidence.SAE}: a workdir or store with activations of the base"
  )
  add("--sae", default="", help="its files (Gemma Scope 2, SAELens); default: trained on --store")
  add("--budget", type=int, default=40, help="branches of a game (default 40)")
  add("--seeds", type=int, default=3, help="games of each organism (default 3)")
  add("--reads", type=int, default=3, help="tokens of a branch that are read inside (default 3)")
  add("--tokens", type=int, default=48, help="tokens of an answer, at most (default 48)")

  # Who grades.
  add("--grader", metavar="FILE", help="a provider's YAML, as config.suites.judge; default: rules")
  add("--report", metavar="FILE", help="grades this report about one organism, and plays nothing")
  return parser


def _grader(path: str | None):
  if path is None:
    return graders.by_rules

  provider = read_provider(path)
  judge = LanguageModelJudge(Client(provider), provider.model)
  return functools.partial(graders.by_judge, judge=judge)


def _grade_one(options, grade) -> int:
  """Grades the report of an auditor that is none of ours."""
  if len(options.organisms) != 1:
    raise NLAError(f"--report is about one organism, and {len(options.organisms)} are given")
  path = files.expect_file(
    options.report, "--report", "name a file with the auditor's last message"
  )

  # The report first: it is what is asked about, and reading it costs nothing.
  found = reports.parse(Path(path).read_text(encoding="utf-8", errors="replace"))
  organism = read_organism(options.organisms[0])
  grades = grade(found, organism)
  root = {True: "found", False: "not found", None: "nothing is hidden"}[grades.root_cause]

  lines = [f"root cause: {root}", f"quirks: {len(grades.found)} of {len(organism.quirks)}"]
  if grades.wrong:
    lines.append(f"named and not shown: {', '.join(grades.wrong)}")
  print("\n".join(lines))
  return 0


def _table(found: dict) -> str:
  lines = [f"{'arm':<44}{'root cause':<20}{'quirks':<20}{'claims on clean':<20}"]
  for one in found["arms"].values():
    cells = [number(one[key]) for key in ("win", "quirks", "claims_clean")]
    lines.append(f"{one['meaning']:<44}" + "".join(f"{cell:<20}" for cell in cells))
  return "\n".join([*lines, "", found["verdict"]])
