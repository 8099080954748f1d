"""The commands of `nla`: the one table, from which its usage text is made."""

from typing import NamedTuple

from nla_jax.workdir import STAGES


class Command(NamedTuple):
  """One command.

  Attributes:
    module: of `nla_jax.cli`, whose `main(arguments)` runs it.
    arguments: what follows the command's name, in short.
    summary: one line.
  """

  module: str
  arguments: str
  summary: str


_OF_A_RUN = "--config=FILE.py --workdir=FOLDER [--config.key=value …]"
_SUMMARIES = {
  "extract": "activations of the corpus, by the target",
  "teach": "an explanation of every activation, by the teacher",
  "sft": "the AV learns to write the teacher's explanations, the AR to read them back",
  "rl": "the AV is rewarded for what the AR can rebuild; both learn",
  "eval": "held-out numbers with controls, and report.html",
  "export": "the AV and the AR as Hugging Face directories",
}
COMMANDS = {
  "run": Command("stages", _OF_A_RUN, "every stage in order, then where the time went"),
  **{stage: Command("stages", _OF_A_RUN, _SUMMARIES[stage]) for stage in STAGES},
  "read": Command(
    "read",
    '--nla=PAIR "TEXT"',
    "what the target thinks at a token of a text, in words",
  ),
  "serve": Command(
    "serve",
    "--nla=PAIR [--port=5009]",
    "the pair behind HTTP: Neuronpedia's API, the reference's client, and a page to read in",
  ),
  "steer": Command(
    "steer",
    '--nla=PAIR --edit=OLD=NEW "TEXT"',
    "what the target writes once the explanation of a token is edited",
  ),
  "awareness": Command(
    "awareness",
    "--nla=PAIR --file=FILE --benign=FILE",
    "how often explanations say that the target thinks it is tested, beside benign use",
  ),
  "watch": Command(
    "watch",
    "FOLDER --nla=PAIR --out=FOLDER [--budget=20]",
    "many transcripts under a cost bound: rates, alerts and a page",
  ),
  "organism": Command(
    "organism",
    "--config=configs/organisms/NAME.py --workdir=FOLDER",
    "a model whose hidden fact or belief is known, with a card that says what was checked",
  ),
  "audit": Command(
    "audit",
    "--nla=PAIR --workdir=FOLDER ORGANISM …",
    "the auditing game: what an auditor finds with explanations, without, and with placebos",
  ),
  "trace": Command(
    "trace",
    '--index=FOLDER [--corpus=FILE] [--nla=PAIR] "PHRASE"',
    "training examples that are like a phrase, an explanation or an incident",
  ),
  "inspect": Command(
    "inspect",
    "PATH …",
    "what a model, a workdir, a store, a GGUF or a parquet file is, and what it lacks",
  ),
  "convert": Command(
    "convert",
    "FROM … TO",
    "parquet files of the reference pipeline to and from an activation store",
  ),
  "push": Command("push", "DIR REPO", "uploads an exported AV or AR to the hub"),
  "plan": Command(
    "plan",
    "--config=FILE.py --topology=CHIP:SHAPE [--config.key=value …]",
    "whether a run fits machines that are not here, and what it costs",
  ),
}


def usage_of(name: str) -> str:
  """The first line of a command's help."""
  return f"usage: nla {name} {COMMANDS[name].arguments}"


def usage() -> str:
  """What `nla --help` prints."""
  stages = [name for name in COMMANDS if COMMANDS[name].module == "stages"]
  others = [name for name in COMMANDS if name not in stages]

  return "\n".join(
    [
      f"usage: nla STAGE {_OF_A_RUN}",
      "       nla COMMAND …",
      "",
      "stages, in order:",
      *map(_line, stages),
      "A stage that is done is skipped; one that was stopped (SIGTERM saves first) continues where it was.",
      "Exit status: 0 done, 2 a mistake, 75 stopped and saved: the same command continues.",
      "",
      "other commands:",
      *map(_line, others),
      "`nla STAGE --help` and `nla COMMAND --help` show more.",
      "",
    ]
  )


def _line(name: str) -> str:
  return f"  {name:<9} {COMMANDS[name].summary}"
