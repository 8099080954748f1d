"""How well labels can be read: in the activation, in the words of its explanation, and in what the AR rebuilds.

1. Is it there? A probe on the activations, over groups that it has not seen. Where it is not above chance the task
   ends: that an explanation does not say what the activation does not hold says nothing about the explanation.
2. Explanations of these activations, and what costs nothing beside them.
3. Judges of words, a judge that is trained on the words, and the AR.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nla_jax.evaluation import readings, tables
from nla_jax.evaluation.findings import Finding, Gate
from nla_jax.evaluation.items.labelled import Task
from nla_jax.evaluation.judges import panel, planted, probes, reconstructor
from nla_jax.evaluation.judges.judge import Judge, Question, hits
from nla_jax.evaluation.judges.rules import load_rules
from nla_jax.evaluation.readings import Readings
from nla_jax.evaluation.subject import Subject, other_rows
from nla_jax.evaluation.tables import Column

_PROBE, _TEXT_PROBE = "probe on h", "trained on words"
# What is read by judges that cost a fit each, or that cannot read a whole context.
_FEW_ROWS = ("explanation", "before_rl", "last_words", "shuffled")


class Read(NamedTuple):
  """A task at one place of its texts.

  Attributes:
    name: of the task, with the place where it is read at several.
    task: the items.
    contexts: token ids of each item up to the place.
    activations: [n, d] there.
  """

  name: str
  task: Task
  contexts: list[np.ndarray]
  activations: np.ndarray


class Labelled(NamedTuple):
  """What was found of a task.

  Attributes:
    name: of the task.
    columns: the probe's first, then the judges'.
    gates: what they had to pass; the first says whether the activation holds it.
    examples: items with what was read.
  """

  name: str
  columns: list[Column]
  gates: list[Gate]
  examples: list[dict]


_SHARE = 0.4  # of the preset's items, for each of a suite's four or five tasks
_FEWEST = 40  # of each, below which a probe has too few cues to learn from


def items_of_a_task(subject: Subject) -> int:
  """How many items a task has at the subject's preset."""
  return max(int(_SHARE * subject.settings.items), _FEWEST)


def read_task(subject: Subject, task: Task) -> Read:
  """The target's activations at the last token of each text."""
  ids = [subject.nla.tokens(one.text).ids for one in task.items]
  return read_at(subject, task, task.name, ids, [len(one) - 1 for one in ids])


def read_at(
  subject: Subject, task: Task, name: str, ids: Sequence[Sequence[int]], places: Sequence[int]
) -> Read:
  """The target's activations at one place of each text."""
  found = subject.nla.activations(ids, [[place] for place in places])
  contexts = [np.array(one[: place + 1]) for one, place in zip(ids, places)]
  return Read(name, task, contexts, np.concatenate(found))


def measure(
  subject: Subject, read: Read, draw: int, *, rules: str = "", masked: bool = False
) -> Labelled:
  """Measures a task.

  Args:
    subject: of the evaluation.
    read: the task and the activations.
    draw: the number of its draw of explanations, see `Subject.explain`.
    rules: the name of the rules that know its classes; "" for none.
    masked: whether explanations are also read without the words of the cue.
  """
  # 1. Is it in the activation at all?
  probe = _probe_column(read, subject)
  gates = [_manipulation(read.name, probe, subject), _probe_gate(read, subject)]
  if not gates[0].passed:
    return Labelled(read.name, [probe], gates, [])

  # 2. Explanations, and what they are compared with.
  texts = _texts(subject, read, draw, masked)

  # 3. Judges that know nothing of the task, then those that are trained on it.
  carriers = subject.sampled.texts
  columns = [probe]
  judges = [*panel.word_judges(subject), *([load_rules(rules)] if rules else [])]
  for judge in judges:
    gates.append(_planted(judge, read, carriers, subject))
    columns.append(_column(judge, read, texts))
  few = {row: texts[row] for row in _FEW_ROWS if row in texts}
  for name, score in (
    (_TEXT_PROBE, _by_words(read, subject.seed)),
    (reconstructor.NAME, _by_ar(read, subject)),
  ):
    gates.append(_planted_trained(name, score, read, carriers, subject))
    rows = few | ({"skyline": texts["skyline"]} if name == _TEXT_PROBE else {})
    columns.append(_trained_column(name, score, read, rows))

  gates += [gate for one in columns[1:] for gate in tables.column_gates(one, subject)]
  return Labelled(read.name, columns, gates, _examples(read, texts, columns))


def _probe_column(read: Read, subject: Subject) -> Column:
  task = read.task
  found = probes.linear_probe(
    read.activations, task.labels, task.groups, len(task.classes), subject.seed
  )
  return Column(
    f"{read.name}, {_PROBE}",
    f"{_PROBE}, {read.name}",
    {"probe": hits(list(found), task.labels)},
    task.groups,
    1 / len(task.classes),
  )


def _manipulation(name: str, probe: Column, subject: Subject) -> Gate:
  """Whether the label is in the activation: the probe's interval lies above chance."""
  one = probe.estimate(subject, "probe")
  low = one.ci95[0] if one.ci95 else -np.inf
  detail = f"{one.value:.2f} from {low:.2f} on, chance {probe.chance:.2f}"
  return Gate(f"in the activation, {name}", bool(low > probe.chance), detail)


def _probe_gate(read: Read, subject: Subject) -> Gate:
  classes = len(read.task.classes)

  def score(vectors, labels, groups):
    return probes.linear_probe(vectors, labels, groups, classes, subject.seed)

  found = planted.planted_vectors(score, read.activations, classes, subject.seed)
  return found.gate(f"{_PROBE}, {read.name}")


def _texts(subject: Subject, read: Read, draw: int, masked: bool) -> Readings:
  """The explanation of each item, and every row beside it."""
  vectors, task = read.activations, read.task
  explanations = subject.explain(vectors, draw).texts
  found: Readings = {"explanation": explanations}
  if subject.before_rl is not None:
    found["before_rl"] = subject.explain(vectors, draw, nla=subject.before_rl).texts
  if masked:
    cues = [one.cue for one in task.items]
    found["cue masked"] = [_without(text, cue) for text, cue in zip(explanations, cues)]

  found |= readings.of_contexts(subject, vectors, read.contexts, explanations)
  others = other_rows(len(explanations), task.groups, subject.seed)
  return found | {"shuffled": [explanations[i] for i in others]}


def _without(text: str | None, cue: str) -> str | None:
  """An explanation without the words of a cue, however they are written."""
  words = {word.strip(".,'’").lower() for word in cue.split() if len(word) > 2}
  if text is None:
    return None
  kept = [word for word in text.split() if word.strip("\".,:;'’()").lower() not in words]
  return " ".join(kept)


def _column(judge: Judge, read: Read, texts: Readings) -> Column:
  task = read.task
  found = {}
  for row, several in texts.items():
    questions = [Question(text, task.classes) for text in several]
    found[row] = hits(judge.scores(questions, task.frame), task.labels)
  name = f"{read.name}, {judge.name}"
  return Column(name, name, found, task.groups, 1 / len(task.classes))


def _planted(judge: Judge, read: Read, carriers: Sequence[str | None], subject: Subject) -> Gate:
  task = read.task
  options = [task.classes] * len(carriers)
  words = dict(zip(task.classes, task.signals or task.classes))
  found = planted.planted_choices(
    judge, carriers, options, subject.seed, task.frame, words.__getitem__
  )
  return found.gate(f"{read.name}, {judge.name}")


def _by_words(read: Read, seed: int):
  """What scores texts by a judge that is trained on them, in folds."""
  classes = len(read.task.classes)

  def score(texts, labels, groups):
    return probes.text_probe(texts, labels, groups, classes, seed)

  return score


def _by_ar(read: Read, subject: Subject):
  """What scores texts by the AR and the mean activations of classes, of the task's other groups."""
  task = read.task

  def score(texts, labels, groups):
    rebuilt = subject.nla.reconstruct(texts, batch=subject.batch)
    if len(texts) == len(task.items) and np.array_equal(groups, task.groups):
      vectors = read.activations
      return reconstructor.prototypes(
        rebuilt, vectors, labels, groups, len(task.classes), subject.seed
      )
    return reconstructor.nearest_class(rebuilt, read.activations, task.labels, len(task.classes))

  return score


def _planted_trained(
  name: str, score, read: Read, carriers: Sequence[str | None], subject: Subject
) -> Gate:
  words = read.task.signals or read.task.classes
  found = planted.planted_labels(score, carriers, words, subject.seed)
  return found.gate(f"{read.name}, {name}")


def _trained_column(name: str, score, read: Read, texts: Readings) -> Column:
  task = read.task
  found = {
    row: hits(list(score(several, task.labels, task.groups)), task.labels)
    for row, several in texts.items()
  }
  full = f"{read.name}, {name}"
  return Column(full, full, found, task.groups, 1 / len(task.classes))


def _examples(read: Read, texts: Readings, columns: Sequence[Column]) -> list[dict]:
  return [
    {
      "task": read.name,
      "text": item.text,
      "true": read.task.classes[item.label],
      "explanation": texts["explanation"][i] or "",
      **{one.name: float(one.hits["explanation"][i]) for one in columns[1:]},
    }
    for i, item in enumerate(read.task.items[:3])
  ]


def finding(question: str, found: Sequence[Labelled], subject: Subject) -> Finding:
  """The finding of several tasks."""
  gates = [gate for one in found for gate in one.gates]
  if any(len(one.columns) > 1 for one in found):
    gates = [*tables.subject_gates(subject, subject.sampled.texts), *gates]
  columns = [column for one in found for column in one.columns]
  return Finding(
    question=question,
    verdict=_verdict(found, subject, gates),
    unit="share of 1",
    scores=tuple(tables.scores(columns, subject, gates)),
    gates=tuple(gates),
    examples=tuple(example for one in found for example in one.examples),
  )


def _verdict(found: Sequence[Labelled], subject: Subject, gates: Sequence[Gate]) -> str:
  """What is in the activations, and what of it is shown to be in the words."""
  failed = {gate.name for gate in gates if not gate.passed}
  said, held = [], [one for one in found if len(one.columns) > 1]
  for one in held:
    # Judges of words alone: the AR may read a code. The first that is sound and can read the context decides.
    words = [c for c in one.columns[1:] if not c.name.endswith(f", {reconstructor.NAME}")]
    sound = [
      c
      for c in words
      if tables.planted_name(c.judge) not in failed
      and not {f"skyline, {c.name}", f"shuffled at chance, {c.name}"} & failed
    ]
    if not sound:
      said.append(f"{one.name}: no judge is strong enough")
      continue

    gap, column = sound[0].above(subject, "explanation", "shuffled"), sound[0]
    value, ceiling = column.hits["explanation"].mean(), one.columns[0].hits["probe"].mean()
    share = (value - column.chance) / (ceiling - column.chance)
    shown = "" if gap.ci95 is not None and gap.ci95[0] > 0 else " (not shown to be above chance)"
    said.append(f"{column.name} {value:.2f}, {100 * share:.0f} % of what the probe gains{shown}")

  absent = [one.name for one in found if len(one.columns) == 1]
  parts = [f"Of {len(found)} tasks the activations hold {len(held)}"]
  if absent:
    parts.append(f"not {', '.join(absent)}, where nothing can be asked of explanations")
  return "; ".join([*parts, *said]) + "."
