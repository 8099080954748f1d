"""`nla watch`: many transcripts under a cost bound: rates with a benign null, alerts, and a page.

Half of the budget goes to the tokens of the highest first-pass score, half is drawn uniformly, so that rates stay
unbiased. What is in the journal is not done again: the same command goes on after a stop.
"""

import argparse
import json
import time
from pathlib import Path

from nla_jax import files
from nla_jax.auditing.grader import DEFAULT, RuleGrader, names, read_rubric
from nla_jax.auditing.transcripts import ENDINGS, files_of
from nla_jax.cli.command_line import Parser
from nla_jax.cli.read import compiled_cache
from nla_jax.errors import NLAError
from nla_jax.json_lines import read_lines
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.progress import say
from nla_jax.run.claim import claimed
from nla_jax.watching import first_pass
from nla_jax.watching.page import write_page
from nla_jax.watching.summary import summarise
from nla_jax.watching.watch import JOURNAL, Settings, Watcher, check_settings, ordinary

ABOVE = 3  # exit status where --fail-above was asked for and the rate is above, or not known
_KEPT = ("budget", "seconds", "positions", "false_alarms", "seed", "grader", "nla")


def main(arguments: list[str]) -> int:
  """The subcommand. Raises NLAError before anything is loaded where it can."""
  options = _parser().parse_args(arguments)

  # 1. What can be wrong is said before the weights are loaded.
  settings = Settings(
    budget=options.budget,
    seconds=options.seconds,
    positions=options.positions,
    false_alarms=options.false_alarms,
    seed=options.seed,
  )
  grader = RuleGrader(read_rubric(options.grader))
  folder, out = Path(files.here(options.folder)), Path(files.here(options.out))
  benign = Path(files.here(options.benign)) if options.benign else None
  for one in (folder, benign) if benign else (folder,):
    if not files_of(one) and not (options.follow and one == folder):
      raise NLAError(f"{one} has no {', '.join(ENDINGS)} file: there is nothing to watch")
  check_settings(out, {key: getattr(options, key) for key in _KEPT})

  # 2. The pair, and what scores tokens without words.
  with claimed(out):
    process.keep_compiled_programs(compiled_cache(), every=True)
    nla = load(options.nla, base=options.base, model_adapter=options.model_adapter)
    watcher = Watcher(nla, grader, settings, _signals(options, nla), out)
    if benign:
      watcher = watcher.with_benign(benign)

    # 3. The folder, once or again and again; the page after each round.
    while True:
      for line in watcher.watch(folder):
        _tell(line)
      summary = _write(out, options, settings, grader.topic)
      if not options.follow:
        break
      time.sleep(options.every)
  return _status(summary, options.fail_above)


def _parser() -> argparse.ArgumentParser:
  parser = Parser(
    prog="nla watch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("folder", metavar="FOLDER", help=f"of files with transcripts: {', '.join(ENDINGS)}")
  add("--nla", required=True, help="package:NAME, a workdir, a folder with av/ and ar/, or an AV's")
  add("--out", required=True, help="folder for the journal, summary.json and watch.html")
  add("--budget", type=int, default=20, help="explanations of a transcript (default 20)")
  add("--seconds", type=float, default=0.0, help="of explaining one transcript; 0 for no bound")
  add("--positions", default="assistant", help="tokens that may be explained (default assistant)")

  # What is looked for, and what it is compared with.
  add(
    "--grader",
    default=DEFAULT,
    help=f"what is looked for: {', '.join(names())}, or a YAML file of rules",
  )
  add("--benign", help="folder of transcripts that are known to be ordinary: the null of all rates")
  add("--false-alarms", type=float, default=0.05, help="share of benign transcripts that may alert")
  add("--probe", help=".npz file with weights [d_model] and bias, of what is looked for")
  add("--known", help=".npz file with activations [k, d_model] whose explanations spoke of it")
  add("--surprise", action="store_true", help="score by the logit lens too: loads the whole target")

  # When it looks, and how it ends.
  add("--follow", action="store_true", help="look again and again, for what is new")
  add("--every", type=float, default=30.0, help="seconds between two looks (default 30)")
  add("--fail-above", type=float, help=f"exit with {ABOVE} where the rate of yes is above this")
  add("--seed", type=int, default=0, help="of all draws (default 0)")

  add("--base", help="the target, in place of the one that the pair names")
  add("--model-adapter", help="a LoRA of PEFT on the target, a directory")
  return parser


def _signals(options, nla) -> first_pass.Signals:
  d_model = nla.pair.verbalizer.architecture.d_model
  return first_pass.Signals(
    probe=first_pass.load_probe(Path(options.probe), d_model) if options.probe else None,
    known=first_pass.load_known(Path(options.known), d_model) if options.known else None,
    target=nla.whole_target if options.surprise else None,
  )


def _tell(line: dict) -> None:
  if "refused" in line:
    say(f"watch: {line['name']} is left out: {line['refused']}")
    return
  labels = [one["label"] for one in line["explained"]]
  say(f"watch: {line['name']}: {labels.count('yes')} of {len(labels)} explanations say it")


def _write(out: Path, options, settings: Settings, topic: str) -> dict:
  """The numbers and the page of what the journal holds."""
  summary = summarise(read_lines(out / JOURNAL), ordinary(out), settings)
  files.write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
  about = {"looked for": topic, "pair": options.nla, "budget": settings.budget}
  write_page(out / "watch.html", summary, about)
  rate = summary["rates"]["yes"]
  shown = "not known" if rate is None else f"{rate['value']:.4f}"
  say(
    f"watch: {len(summary['transcripts'])} transcripts, {summary['alerts']} alerts, rate of yes {shown}; "
    f"{out / 'watch.html'}"
  )
  return summary


def _status(summary: dict, most: float | None) -> int:
  """0, or `ABOVE`: a gate that cannot know is closed."""
  if most is None:
    return 0
  rate = summary["rates"]["yes"]
  return ABOVE if rate is None or rate["value"] > most else 0
