"""Do explanations say what comes next? Ten texts, of which one follows the context; a judge reads the words alone.

With distractors of other documents a topic is enough (easy); with those of the same article it is not (hard). Beside
the explanations stand what costs nothing (the last words, the last token, the logit lens), what another row's
explanation scores, and the context itself.
"""

from collections.abc import Sequence

import numpy as np

from nla_jax.evaluation import readings, tables
from nla_jax.evaluation.findings import Finding, Gate, Score
from nla_jax.evaluation.items.continuations import Arm, draw_arms
from nla_jax.evaluation.judges import panel, planted, reconstructor
from nla_jax.evaluation.judges.judge import CONTINUATION, Judge, Question, hits
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import LeftOutError, Measured, Suite
from nla_jax.evaluation.tables import Column

NAME = "suffix_prediction"
_BUDGETS = (4, 8, 16, 32)  # first tokens of an explanation
_EXAMPLES = 10
_AR_ROWS = ("explanation", "greedy", "before_rl", "teacher", "retrieval", "last_words", "shuffled")
_SIGNAL_WORDS = 8  # of an option, that are planted


def run(subject: Subject) -> Measured:
  """Scores every reading of each arm by every judge.

  Raises:
    LeftOutError: no context has enough behind it, or there is no base model to judge with.
  """
  arms = draw_arms(subject)
  if not arms:
    raise LeftOutError(
      "no held-out context has 16 tokens behind it and enough other documents to draw options from"
    )
  judges = panel.word_judges(subject)

  # 1. Judges first: what none of them can read need not be asked.
  gates = tables.subject_gates(subject, subject.sampled.texts)
  ar = reconstructor.Reconstructor(subject.nla, subject.batch)
  gates += [_planted(judge, arms[0], subject) for judge in (*judges, ar)]

  # 2. Every arm by every judge, and by the AR, which may read a code.
  of_words, columns, extra, curves, examples = [], [], [], {}, []
  for arm in arms:
    read = readings.of_rows(subject, arm.index)
    words = [_column(judge, arm, read, subject) for judge in judges]
    code = _ar_column(ar, arm, read, subject)
    gates += [gate for column in words for gate in tables.column_gates(column, subject)]
    of_words += words
    columns += [*words, code]
    extra += _illegible(words, code, gates, subject, arm)
    if not curves:
      curves = _budgets(judges[0], arm, read, subject)
      examples = _shown(arm, read, words[0], subject)

  finding = Finding(
    question=f"Do explanations say which of ten texts of {arms[0].length} tokens comes next?",
    verdict=tables.verdict(of_words, subject, gates, "say which text comes next"),
    unit="share of 1",
    scores=(*tables.scores(columns, subject, gates), *extra),
    gates=tuple(gates),
    curves=curves,
    axes=("first tokens that are read", "share right"),
    examples=tuple(examples),
  )
  return Measured({}, findings={NAME: finding})


def _planted(judge: Judge, arm: Arm, subject: Subject) -> Gate:
  """A judge reads explanations of other rows with the first words of an option behind them."""
  carriers = [subject.sampled.texts[subject.other_rows[i]] for i in arm.index]
  found = planted.planted_choices(
    judge, carriers, arm.options, subject.seed, CONTINUATION, signal=_first_words
  )
  return found.gate(judge.name)


def _first_words(option: str) -> str:
  return " ".join(option.split()[:_SIGNAL_WORDS])


def _column(judge: Judge, arm: Arm, read: readings.Readings, subject: Subject) -> Column:
  found = {row: _hits(judge, texts, arm) for row, texts in read.items()}
  groups = subject.groups[arm.index]
  return Column(f"{arm.name}, {judge.name}", judge.name, found, groups, _chance(arm))


def _hits(judge: Judge, texts: Sequence[str | None], arm: Arm) -> np.ndarray:
  questions = [Question(text, options) for text, options in zip(texts, arm.options)]
  return hits(judge.scores(questions, CONTINUATION), arm.rights)


def _chance(arm: Arm) -> float:
  return 1 / len(arm.options[0])


def _ar_column(ar: Judge, arm: Arm, read: readings.Readings, subject: Subject) -> Column:
  """What the AR reads of texts of its own length, which a context is not."""
  return _column(ar, arm, {row: read[row] for row in _AR_ROWS if row in read}, subject)


def _illegible(
  words: Sequence[Column], code: Column, gates: Sequence[Gate], subject: Subject, arm: Arm
) -> list[Score]:
  """The alarm for a code, against the judge of words that reads explanations best."""
  failed = {gate.name for gate in gates if not gate.passed}
  sound = [one for one in words if tables.planted_name(one.judge) not in failed]
  if not sound:
    return []
  best = max(sound, key=lambda one: one.hits["explanation"].mean())
  name = f"{arm.name}, {reconstructor.NAME} less {best.judge}"
  found = tables.illegible(best, code, subject, name)
  return [found] if found else []


def _budgets(
  judge: Judge, arm: Arm, read: readings.Readings, subject: Subject
) -> dict[str, list[tuple[float, float]]]:
  """The share right of the first tokens of explanations: what comes first should matter most."""
  tokenizer, found = subject.nla.pair.tokenizer, {}
  for row in (row for row in ("explanation", "teacher") if row in read):
    every = tokenizer([text or "" for text in read[row]], add_special_tokens=False)["input_ids"]
    mean = float(np.mean([len(ids) for ids in every]))
    found[row] = [
      (float(n), _hits(judge, readings.first_tokens(tokenizer, read[row], n), arm).mean())
      for n in _BUDGETS
      if n < mean
    ]
    # All of it, at its mean length.
    found[row].append((mean, _hits(judge, read[row], arm).mean()))
  return found


def _shown(arm: Arm, read: readings.Readings, column: Column, subject: Subject) -> list[dict]:
  """The first items, in their random order."""
  return [
    {
      "document": subject.documents[i].id,
      "context": read["skyline"][j],
      "explanation": read["explanation"][j] or "",
      "options": list(arm.options[j]),
      "right": arm.options[j][arm.rights[j]],
      column.name: float(column.hits["explanation"][j]),
    }
    for j, i in enumerate(arm.index[:_EXAMPLES])
  ]


SUITE = Suite(run)
