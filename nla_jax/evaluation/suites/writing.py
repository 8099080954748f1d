"""How well does the AV write, beside its teacher and at equal length?

RL pays for what the AR can rebuild, not for good writing: repeats, stray phrases and lists of guesses cost nothing.
Each text is counted as it is, and as many tokens of it as every other row has at the same activation: longer texts
repeat more, whoever wrote them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.text import encode
from nla_jax.errors import NLAError
from nla_jax.evaluation import prose, variants
from nla_jax.evaluation.findings import Finding, Gate, Score
from nla_jax.evaluation.intervals import bootstrap_mean
from nla_jax.evaluation.judges.frozen_target import FrozenTarget
from nla_jax.evaluation.judges.judge import Frame, Question
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite
from nla_jax.evaluation.transforms.words import first_tokens
from nla_jax.progress import say

NAME = "writing"
_QUESTION = "How well does the AV write, beside its teacher and at equal length?"
_UNIT = "share of 1; nats per token; reading ease 0 to 100; cosine"
_PLAIN = Frame("", "{option}")  # a text by itself
NLL = "NLL under the base"
_EQUAL = ", equal length"
_TOGETHER = 8  # texts whose likelihood is computed at once
_ITEMS_OF = 64  # rows whose items the AR reads one by one
_COUNTS = {
  "repeated 3-grams": prose.repeated,
  "distinct 2-grams": prose.distinct,
  "in chains of or": prose.or_chains,
  "reading ease": prose.reading_ease,
}
Texts = Sequence[str | None]


def run(subject: Subject) -> Measured:
  """Measures the first rows, as many as the preset has items."""
  subject = variants.first_rows(subject, subject.settings.items)
  sources = variants.texts_by_row(subject)
  cut = _equal_length(subject, sources)

  # 1. What counting says.
  scores = []
  for row, texts in sources.items():
    scores.append(_score(subject, row, "parse rate", [float(t is not None) for t in texts], texts))
    lengths = [len(encode(subject.nla.pair.tokenizer, text or "")) for text in texts]
    scores.append(_score(subject, row, "tokens", lengths, texts))
    for suffix, several in (("", texts), (_EQUAL, cut[row])):
      scores += _counted(subject, row, suffix, several)

  # 2. What the base model says, and what the AR makes of each item alone.
  for row, texts in sources.items():
    scores += _likelihood(subject, row, texts, cut[row])
    scores += _duplicates(subject, row, texts)

  finding = Finding(_QUESTION, _verdict(scores), _UNIT, tuple(scores), tuple(_gates(scores)))
  return Measured({}, findings={NAME: finding})


def _equal_length(subject: Subject, sources: dict[str, Texts]) -> dict[str, Texts]:
  """Of each row's texts as many first tokens as the shortest has; where one is silent, none is compared."""
  tokenizer = subject.nla.pair.tokenizer
  lengths = {
    row: [len(encode(tokenizer, t or "")) for t in texts] for row, texts in sources.items()
  }

  # A text that is not there makes all of its row silent, so that every row counts the same activations.
  least = np.min(list(lengths.values()), axis=0)
  return {
    row: [first_tokens([t], tokenizer, n)[0] if n else None for t, n in zip(texts, least.tolist())]
    for row, texts in sources.items()
  }


def _counted(subject: Subject, row: str, suffix: str, texts: Texts) -> list[Score]:
  found = [
    _score(subject, row, name + suffix, [count(text or "") for text in texts], texts)
    for name, count in _COUNTS.items()
  ]
  shared = prose.templates(texts, subject.groups)
  found.append(_score(subject, row, f"3-grams of other documents{suffix}", shared, texts))
  return [one for one in found if one is not None]


def _score(subject: Subject, row: str, column: str, values: Sequence[float], texts: Texts):
  """The mean over texts that are there; of the parse rate over all. None without any."""
  every = column == "parse rate"
  there = np.array([every or bool(text) for text in texts])
  if not there.any():
    return None

  settings = subject.settings
  fixed = {"samples": settings.bootstrap_samples, "seed": settings.seed}
  one = bootstrap_mean(np.asarray(values, float)[there], subject.groups[there], **fixed)
  return Score(row, column, one.value, one.ci95, one.n)


def _likelihood(subject: Subject, row: str, texts: Texts, cut: Texts) -> list[Score]:
  """Nats a token under the frozen base; nothing where there is none."""
  try:
    base = FrozenTarget(subject.nla.whole_target, subject.nla.pair.tokenizer)
  except NLAError as error:
    say(f"eval: the likelihood of what is written is left out: {error}")
    return []

  found = []
  for suffix, several in (("", texts), (_EQUAL, cut)):
    values = nats(base.logprobs, several)
    found.append(_score(subject, row, NLL + suffix, values, several))
  return [one for one in found if one is not None]


def nats(logprobs: Callable, texts: Texts) -> np.ndarray:
  """[n] negative log-likelihood of each text, in nats a token; 0 of one that is not there."""
  spoken = [i for i, text in enumerate(texts) if text]
  # Texts of like length share a block.
  spoken.sort(key=lambda i: len(texts[i]))
  found = np.zeros(len(texts))

  for start in range(0, len(spoken), _TOGETHER):
    some = spoken[start : start + _TOGETHER]
    # Filled up, so that every block is one shape.
    options = tuple(texts[i] for i in some) + (texts[some[-1]],) * (_TOGETHER - len(some))
    (values,) = logprobs([Question("", options)], _PLAIN)
    found[some] = -np.asarray(values)[: len(some)]
  return found


def _duplicates(subject: Subject, row: str, texts: Texts) -> list[Score]:
  """How alike the AR rebuilds two items of one text: the mean cosine, less what all items share.

  By chance: of two items of different documents.
  """
  several = [prose.parts(text) if text else [] for text in texts[:_ITEMS_OF]]
  flat = [part for parts in several for part in parts]
  if len(flat) < 2:
    return []

  # What every item shares says nothing of two of them.
  rebuilt = fve.normalise(
    np.asarray(subject.nla.reconstruct(flat, batch=subject.batch), np.float64)
  )
  units = fve.normalise(rebuilt - rebuilt.mean(axis=0))

  values, rows, start = [], [], 0
  for i, parts in enumerate(several):
    mine = units[start : start + len(parts)]
    start += len(parts)
    if len(parts) > 1:
      pairs = (mine @ mine.T)[np.triu_indices(len(parts), 1)]
      values.append(float(pairs.mean()))
      rows.append(i)
  if not values:
    return []

  owner = np.repeat(subject.groups[: len(several)], [len(parts) for parts in several])
  apart = owner[:, None] != owner
  chance = float((units @ units.T)[apart].mean()) if apart.any() else None

  settings = subject.settings
  fixed = {"samples": settings.bootstrap_samples, "seed": settings.seed}
  one = bootstrap_mean(np.array(values), subject.groups[rows], **fixed)
  return [Score(row, "duplicate items", one.value, one.ci95, one.n, chance)]


def _gates(scores: Sequence[Score]) -> list[Gate]:
  cells = {(one.row, one.column): one.value for one in scores}
  rate = cells["explanation", "parse rate"]
  return [Gate("explanations parse", rate >= 0.9, f"{rate:.2f} of them do")]


def _verdict(scores: Sequence[Score]) -> str:
  """What is worse than the teacher's at equal length, by intervals that do not touch."""
  cells = {(one.row, one.column): one for one in scores}
  rate = f"{cells['explanation', 'parse rate'].value:.0%} of the explanations parse"
  if ("teacher", "tokens") not in cells:
    return f"{rate}; without a teacher's text there is nothing to compare them with."

  worse = []
  for name, up in ((NLL, True), ("repeated 3-grams", True), ("distinct 2-grams", False)):
    mine, theirs = (cells.get((row, name + _EQUAL)) for row in ("explanation", "teacher"))
    if mine is None or theirs is None or mine.ci95 is None or theirs.ci95 is None:
      continue
    apart = mine.ci95[0] > theirs.ci95[1] if up else mine.ci95[1] < theirs.ci95[0]
    if apart:
      worse.append(f"{name} {mine.value:.2f} against {theirs.value:.2f}")
  said = "; ".join(worse) if worse else "nothing that is counted is worse for certain"
  return f"{rate}. Beside the teacher's text at equal length: {said}."


SUITE = Suite(run)
