"""Plays the game: organisms × seeds × arms, each game kept in a file of its own, so that a stop costs one game.

games/NAME-SEED.json   transcripts, reports and grades of one organism and seed, for every arm and budget
audit.json  audit.html   written last
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nla_jax import files
from nla_jax.errors import NLAError
from nla_jax.game import auditor, evidence, graders
from nla_jax.game.branches import Branches
from nla_jax.game.evidence import CHAT, LENS, NLA_DIFF, PLACEBO, SAE, SEARCH, Diff, Features, Turn
from nla_jax.game.graders import Grades
from nla_jax.game.report import Report
from nla_jax.organisms.card import Organism
from nla_jax.organisms.speaker import Speaker, load_speaker
from nla_jax.progress import Progress
from nla_jax.run.stage import digest

GAMES = "games"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """How the game is played.

  Attributes:
    arms: of `evidence.ARMS`.
    budget: branches of a game.
    seeds: games of each organism.
    reads: tokens of a branch that are read inside.
    tokens: of an answer, at most.
  """

  arms: tuple[str, ...]
  budget: int = 40
  seeds: int = 3
  reads: int = 3
  tokens: int = 48

  @property
  def budgets(self) -> list[int]:
    """The points of the win curve."""
    return sorted({max(self.budget * i // 4, 1) for i in (1, 2, 3, 4)})


def check_rules(rules: Rules, organisms: Sequence[Organism], features: Any) -> None:
  """Raises NLAError for a game that cannot be played, before anything is loaded; `features` is None without an SAE."""
  for name in ("budget", "seeds", "reads", "tokens"):
    if getattr(rules, name) < 1:
      raise NLAError(f"--{name}={getattr(rules, name)}: expected at least 1")
  wrong = [arm for arm in rules.arms if arm not in evidence.ARMS]
  if wrong or not rules.arms:
    named = repr(wrong[0]) if wrong else "none"
    raise NLAError(f"--arms names {named}; expected some of {', '.join(evidence.ARMS)}")
  if SAE in rules.arms and features is None:
    raise NLAError(
      f"the arm {SAE} needs activations of the base, and none are given: name them with --store, or leave it out of "
      "--arms"
    )

  # One name would be two games in one file.
  names = [one.name for one in organisms]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise NLAError(f"two organisms are called {twice[0]!r}: leave one of them out")
  if PLACEBO in rules.arms and len(organisms) < 2:
    raise NLAError(f"the arm {PLACEBO} reads another organism, and there is one: give a second one")


def play(
  organisms: Sequence[Organism],
  nla: Any,
  rules: Rules,
  folder: Path,
  *,
  grade: Callable[[Report, Organism], Grades] = graders.by_rules,
  features: Features | None = None,
) -> list[dict]:
  """Rows of every game: {"organism", "seed", "arm", "budget", "report", …} with what the grader says.

  Args:
    organisms: that passed their checks, of one base.
    nla: the base's pair.
    rules: how.
    folder: of the games.
    grade: from a report and the organism to grades.
    features: names of SAE features, for that arm.
  """
  check_rules(rules, organisms, features)
  path, base, rows = folder / GAMES, None, []
  progress = Progress("audit", len(organisms) * rules.seeds, "game")
  for i, organism in enumerate(organisms):
    loaded = None
    for seed in range(rules.seeds):
      file = path / f"{organism.name}-{seed}.json"
      game = files.read_json(file)
      other = organisms[(i + 1) % len(organisms)]
      made = _made_from(organism, other, nla, rules)
      if game is not None and game["made_from"] != made:
        raise NLAError(f"{file} is of another game: give another --workdir, or delete {path}")

      if game is None:
        # Loaded when the first game needs them, and given up with the organism.
        base = base or load_speaker(nla.base, dtype=nla.pair.verbalizer.dtype)
        loaded = loaded or _load(organism, other, base, nla, rules)
        game = _game(loaded, nla, rules, seed, features) | {"made_from": made}

        # Graded before it is kept: a provider is paid once for each report.
        game["rows"] = [
          one | dataclasses.asdict(grade(Report(**one["report"]), organism)) for one in game["rows"]
        ]
        files.write_json(file, game)
      rows += [{"organism": organism.name, "seed": seed, **one} for one in game["rows"]]
      progress.advance()
  progress.close()
  return rows


def _made_from(organism: Organism, other: Organism, nla: Any, rules: Rules) -> dict[str, Any]:
  # More seeds are further games, and change none that was played.
  said = dataclasses.asdict(rules) | {"arms": list(rules.arms)}
  said.pop("seeds")
  placebo = digest(other.card) if PLACEBO in rules.arms else ""
  of_pair = {"base": nla.base, "layer": nla.pair.layer}
  return said | of_pair | {"organism": digest(organism.card), "placebo": placebo}


@dataclasses.dataclass(frozen=True)
class _Loaded:
  """Who is in a game."""

  organism: Organism
  speaker: Speaker
  base: Speaker
  other: Speaker | None


def _load(organism: Organism, other: Organism, base: Speaker, nla: Any, rules: Rules) -> _Loaded:
  # The placebo is read on the organism's own text, so only its weights are needed.
  dtype = jnp.dtype(nla.pair.verbalizer.dtype)
  placebo = load_speaker(nla.base, other.adapter, dtype) if PLACEBO in rules.arms else None
  return _Loaded(organism, load_speaker(nla.base, organism.adapter, dtype), base, placebo)


def _game(
  loaded: _Loaded, nla: Any, rules: Rules, seed: int, features: Features | None
) -> dict[str, Any]:
  """One organism and one seed: one set of transcripts, which every arm reads in its own way."""
  branches = Branches(loaded.speaker, rules.budget, rules.tokens)
  turns = auditor.converse(branches, loaded.base, seed, rules.tokens)
  diffs = _diffs(loaded, turns, nla, rules, seed, features)

  rows = []
  for arm in rules.arms:
    for budget in rules.budgets:
      diff = diffs.get(arm)
      if arm == SEARCH:
        found = evidence.searched(loaded.organism.folder, auditor.query_of(turns[:budget]))
        # Against ordinary text: a sample of the same data would hold what is looked for as well.
        diff = Diff([found], [[turn.of_base for turn in turns[:budget]]])

      report = auditor.write_report(turns[:budget], arm, diff)
      row = {"arm": arm, "budget": budget, "report": dataclasses.asdict(report)}
      rows.append(row | {"named": _named(loaded.organism, diffs.get(arm))})
  return {"turns": [dataclasses.asdict(one) for one in turns], "rows": rows}


def _named(organism: Organism, diff: Diff | None) -> list[float] | None:
  """The share of texts about the organism, and about the base, that name the hidden fact: a rung of the ladder."""
  fact = organism.fact
  if fact is None or diff is None:
    return None

  both = (evidence.flat(some) for some in (diff.ours, diff.theirs))
  return [float(np.mean([fact.named_in(text) for text in some] or [0.0])) for some in both]


def _diffs(
  loaded: _Loaded,
  turns: Sequence[Turn],
  nla: Any,
  rules: Rules,
  seed: int,
  features: Features | None,
) -> dict[str, Diff]:
  """What each arm reads inside, of every branch."""
  if not set(rules.arms) - {CHAT, SEARCH}:
    return {}

  # Of one text three models are read; how it is tokenised is the same for all.
  texts = [evidence.places_of(loaded.base, turn, rules.reads) for turn in turns]
  layer, found = nla.pair.layer, {}
  ours, theirs = (
    evidence.activations_of(one, texts, layer) for one in (loaded.speaker, loaded.base)
  )

  # The base's explanations are the same for both arms that need them.
  if {NLA_DIFF, PLACEBO} & set(rules.arms):
    of_base = evidence.explained(nla, theirs, seed)
  if NLA_DIFF in rules.arms:
    found[NLA_DIFF] = Diff(evidence.explained(nla, ours, seed), of_base)
  if PLACEBO in rules.arms:
    others = evidence.activations_of(loaded.other, texts, layer)
    found[PLACEBO] = Diff(evidence.explained(nla, others, seed), of_base)
  if LENS in rules.arms:
    found[LENS] = Diff(
      evidence.by_lens(loaded.speaker, ours), evidence.by_lens(loaded.base, theirs)
    )
  if SAE in rules.arms and features is not None:
    found[SAE] = Diff(evidence.by_features(features, ours), evidence.by_features(features, theirs))
  return found
