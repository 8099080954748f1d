"""Watches a folder of transcripts: a first pass over every token, a few explanations, a label each, rates and alerts.

1. Benign transcripts first, where there are any: how their activations are distributed, and how they score when they
   are watched in the same way. A transcript's p-value is the share of benign ones that score as much.
2. Each transcript: activations of the tokens that may be explained, their scores, the tokens that the budget pays for,
   their explanations, the grader's label of each. One line of the journal is written; what is there is not done again.
3. The folder is looked through again as long as it is followed.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nla_jax import files
from nla_jax.auditing.grader import UNCLEAR, YES, Grader
from nla_jax.auditing.transcripts import Transcript, files_of, read_file
from nla_jax.autoencoder.nla import NLA
from nla_jax.conversation.positions import choose as positions_of
from nla_jax.errors import NLAError
from nla_jax.json_lines import JsonLines, read_lines
from nla_jax.watching import budget, first_pass
from nla_jax.watching import reference as references
from nla_jax.watching.first_pass import Signals

JOURNAL, BENIGN, REFERENCE, SETTINGS = (
  "watched.jsonl",
  "benign.jsonl",
  "reference.npz",
  "settings.json",
)
_AT_ONCE = 16  # explanations between two looks at the clock
_CONTEXT = 80  # characters kept before a token


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How transcripts are watched.

  Attributes:
    budget: explanations of a transcript, at most.
    seconds: of explaining one, at most; 0 for no bound.
    positions: which tokens may be explained, see `conversation.positions`.
    false_alarms: share of benign transcripts that may give an alert.
    seed: of all draws.
  """

  budget: int = 20
  seconds: float = 0.0
  positions: str = "assistant"
  false_alarms: float = 0.05
  seed: int = 0

  def __post_init__(self):
    if self.budget < 1:
      raise NLAError(f"--budget={self.budget}: at least one explanation of a transcript is needed")
    if not 0 <= self.seconds < float("inf"):
      raise NLAError(f"--seconds={self.seconds:g}: expected seconds, or 0 for no bound")
    if not 0 < self.false_alarms < 1:
      raise NLAError(f"--false-alarms={self.false_alarms:g}: expected a share between 0 and 1")


class Watcher(NamedTuple):
  """What watches.

  Attributes:
    nla: the pair.
    grader: whose verdict labels explanations.
    settings: how.
    signals: what scores tokens without words.
    folder: where journals and the reference are kept.
  """

  nla: NLA
  grader: Grader
  settings: Settings
  signals: Signals
  folder: Path

  def with_benign(self, benign: Path) -> "Watcher":
    """The watcher that knows what benign transcripts look like, and has watched them.

    Raises:
      NLAError: there is nothing benign to explain, or too little for alerts at this rate of false alarms.
    """
    kept = self.folder / REFERENCE
    if not kept.exists():
      with files.writing(kept):
        _fit(self, benign).save(kept)

    # Watched in the same way, with the same budget: their statistics are the null.
    signals = self.signals._replace(reference=references.load(kept))
    knowing = self._replace(signals=signals)
    for _ in knowing.watch(benign, BENIGN):
      pass

    n, needed = len(ordinary(self.folder)), references.fewest(self.settings.false_alarms)
    if n < needed:
      raise NLAError(
        f"--false-alarms={self.settings.false_alarms:g} needs {needed} benign transcripts, and {benign} has {n} that "
        "can be read: give more of them, or allow more false alarms"
      )
    return knowing

  def watch(self, folder: Path, journal: str = JOURNAL) -> Iterator[dict[str, Any]]:
    """Lines of the transcripts of a folder that the journal does not have yet, as they are written to it."""
    path = self.folder / journal
    known = {(line["name"], line.get("digest")) for line in read_lines(path)}
    lines = JsonLines(path)
    try:
      for name, one in transcripts(folder):
        # What was edited since has another digest, and is read again.
        digest = None if isinstance(one, str) else one.digest
        if (name, digest) in known:
          continue

        known.add((name, digest))
        line = refused(name, one) if isinstance(one, str) else self._line(name, one)
        lines.write(line)
        yield line
    finally:
      lines.close()

  def _line(self, name: str, one: Transcript) -> dict[str, Any]:
    """One transcript, watched; or why it could not be."""
    began = time.monotonic()
    try:
      tokens = self.nla.tokens(list(one.messages))
      places = positions_of(tokens, self.settings.positions, seed=self.settings.seed)
      [vectors] = self.nla.activations([tokens.ids], [places])
    except NLAError as error:
      return refused(name, str(error)) | {"digest": one.digest}

    # 1. Every token, without words; then those that are paid for.
    following = [tokens.ids[i + 1] if i + 1 < len(tokens) else -1 for i in places]
    scores = first_pass.scores(self.signals, vectors, following)
    seed = (self.settings.seed, int(one.digest[:12], 16))
    chosen = budget.choose(scores, self.settings.budget, seed)
    looked = time.monotonic()

    # 2. Their explanations, as many as there is time for.
    found = self._explained(vectors[chosen.places])
    chosen = chosen.first(len(found))

    # 3. What they say.
    texts = [explanation.text for explanation in found]
    # An answer that did not parse says nothing, and so is no "no".
    labels = [
      UNCLEAR if text is None else grade.verdict
      for text, grade in zip(texts, self.grader.grades(texts), strict=True)
    ]
    explained = [
      {
        "position": places[place],
        "token": tokens.word(places[place]),
        "before": tokens.text[: tokens.starts[places[place]]][-_CONTEXT:],
        "message": tokens.messages[places[place]],
        "by_score": bool(by_score),
        "score": float(scores[place]),
        "text": explanation.text,
        "fve": explanation.fve,
        "label": label,
      }
      for place, by_score, explanation, label in zip(
        chosen.places.tolist(), chosen.scored.tolist(), found, labels, strict=True
      )
    ]
    return {
      "name": name,
      "digest": one.digest,
      "tokens": len(tokens),
      "eligible": len(places),
      "strata": list(chosen.sizes),
      "rates": {label: _number(chosen, labels, label) for label in (YES, UNCLEAR)},
      "explained": explained,
      "seconds": {"first_pass": looked - began, "explanations": time.monotonic() - looked},
    }

  def _explained(self, vectors: np.ndarray) -> list[Any]:
    """Explanations of activations in their order, as many as there is time for, at least one batch."""
    began, bound = time.monotonic(), self.settings.seconds
    found: list[Any] = []
    for start in range(0, len(vectors), _AT_ONCE):
      if found and bound and time.monotonic() - began > bound:
        break

      # A row's draws do not depend on where the time ran out.
      rows = vectors[start : start + _AT_ONCE]
      streams = range(start, start + len(rows))
      found += self.nla.explain(rows, seed=self.settings.seed, streams=streams)
    return found


def _number(chosen: budget.Chosen, labels: list[str], label: str) -> float | None:
  found = budget.rate(chosen, [one == label for one in labels])
  return None if np.isnan(found) else found


def transcripts(folder: Path) -> Iterator[tuple[str, Transcript | str]]:
  """The (name, transcript) of every one in a folder's files, or (name, why it cannot be read).

  Raises:
    NLAError: there is no such folder.
  """
  for path in files_of(folder):
    place = path.relative_to(folder).as_posix()
    bad: list[tuple[str, str]] = []
    found = read_file(path, lambda name, why, bad=bad: bad.append((name, why)))

    # A file that breaks in the middle costs what stands behind the break, and no other file.
    while True:
      try:
        one = next(found)
      except StopIteration:
        break
      except NLAError as error:
        bad.append((place, str(error)))
        break
      yield f"{place}: {one.id}", one
    yield from ((f"{place}: {name}", why) for name, why in bad)


def refused(name: str, why: str) -> dict[str, Any]:
  """The journal's line of what could not be read."""
  return {"name": name, "refused": why}


def statistic(line: dict[str, Any]) -> float:
  """By which transcripts are compared: the share of explanations that say it, those chosen by score among them."""
  labels = [one["label"] for one in line["explained"]]
  return labels.count(YES) / max(len(labels), 1)


def ordinary(folder: Path) -> list[float]:
  """The statistics of the benign transcripts in a journal's folder."""
  return [statistic(line) for line in read_lines(folder / BENIGN) if "refused" not in line]


def _fit(watcher: Watcher, benign: Path) -> references.Reference:
  """The distribution of the activations of benign transcripts, one transcript in memory at a time."""
  d_model = watcher.nla.pair.verbalizer.architecture.d_model
  sums = references.nothing(d_model, watcher.settings.seed)

  for _, one in transcripts(benign):
    if isinstance(one, str):
      continue
    try:
      tokens = watcher.nla.tokens(list(one.messages))
      places = positions_of(tokens, watcher.settings.positions, seed=watcher.settings.seed)
      [vectors] = watcher.nla.activations([tokens.ids], [places])
    except NLAError:
      continue  # the journal of the benign will say why

    sums = references.add(sums, vectors)
  return references.fit(sums)


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
  """Keeps how a folder's transcripts are watched. Raises NLAError where it was begun in another way."""
  held = files.read_json(folder / SETTINGS)
  if held is None:
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / SETTINGS, settings)
    return
  other = [
    f"{key} (begun with {held.get(key)!r}, now {value!r})"
    for key, value in settings.items()
    if held.get(key) != value
  ]
  if other:
    raise NLAError(
      f"{folder} was begun with other settings: {', '.join(other)}; take another --out, so that all of its numbers "
      "are of one kind"
    )
