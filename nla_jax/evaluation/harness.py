"""Held-out evaluation of a pair: a subject is drawn, suites measure it, and what they find is joined.

`evaluate` is importable on its own; `nla eval` and the report use it. What is measured, under which name and by which
suite, stands in `nla_jax.quantities`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax import quantities
from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.text import in_context
from nla_jax.data.store.store import Store
from nla_jax.evaluation import breakdowns, findings, intervals, ladder
from nla_jax.evaluation.findings import Finding
from nla_jax.evaluation.kept import Kept, made_from
from nla_jax.evaluation.subject import Subject, draw_subject
from nla_jax.evaluation.suite import (
  ALWAYS,
  QUESTIONS,
  LeftOutError,
  Measured,
  load_suite,
  suite_names,
)
from nla_jax.parallel import distributed
from nla_jax.progress import Progress, say
from nla_jax.quantities import Found
from nla_jax.workdir import FITS

_CONTEXT = 80  # tokens shown before an example's position
_AFTER = 12  # and after


@dataclasses.dataclass(frozen=True)
class Report:
  """What an evaluation found.

  Attributes:
    metrics: the content of metrics.json.
    rows: [n] store rows evaluated.
    details: per row: where it stands ("document", "group", "position", "context_before", "token", "context_after"),
      "norm", "cosine" of the round trip, and, by key of the quantity, "texts" and "fve".
  """

  metrics: dict[str, Any]
  rows: np.ndarray
  details: list[dict[str, Any]]

  def examples(self, n: int) -> list[dict[str, Any]]:
    """The first `n` rows, in random order, with their texts: the content of examples.json."""
    return [_shown(row) for row in self.details[:n]]

  def per_row(self) -> dict[str, list[float]]:
    """One column for each FVE, by the quantity's key, and "norm" and "position": the content of rows.json."""
    columns = {key: [row["fve"][key] for row in self.details] for key in self.details[0]["fve"]}
    return columns | {name: [row[name] for row in self.details] for name in ("norm", "position")}


def evaluate(
  nla: NLA,
  store: Store,
  *,
  texts: dict[int, str] | None = None,
  before_rl: NLA | None = None,
  suites: Sequence[str] | None = None,
  keep: str | Path | None = None,
  **settings,
) -> Report:
  """Evaluates a pair on held-out activations.

  Args:
    nla: an `nla_jax.autoencoder.nla.NLA`, of a run or loaded from anywhere.
    store: the activation store; its split `held_out` is evaluated, the others serve the controls (without any, those
      that need a training activation are left out).
    texts: the teacher's text by store row; without it, the teacher's-text FVE and retrieval are left out.
    before_rl: the pair before RL, to see what RL added; or None.
    suites: names of suites that run beside `reconstruction`; those of `nla_jax.quantities.TABLE` where None.
    keep: a folder in which answers to questions, and what they fit on training rows, are kept, so that an evaluation
      that was stopped goes on; or None.
    settings: of `nla_jax.evaluation.subject.Settings`: rows, seed, batch, preset and more.

  Raises:
    NLAError: the store is of another width or layer than the pair, or has no split `held_out`; or there is no such
      suite or preset.
    PreemptedError: the machine is about to be taken away; an evaluation begins anew, but for what is in `keep`.
  """
  suite_names(suites)  # before anything is read
  folder = Path(keep) if keep else None
  subject = draw_subject(
    nla, store, texts=texts, before_rl=before_rl, folder=folder and folder / FITS, **settings
  )
  return measure(subject, suites, kept=Kept(folder, made_from(subject)) if folder else None)


def measure(
  subject: Subject,
  suites: Sequence[str] | None = None,
  *,
  bootstrap_samples: int | None = None,
  kept: Kept | None = None,
) -> Report:
  """Measures a subject: suites are loaded, each runs, and what they found becomes metrics and examples.

  Args:
    subject: of `draw_subject`.
    suites: names of suites; `reconstruction` runs in any case, and all of the table where None.
    bootstrap_samples: of the intervals; the subject's where None.
    kept: findings that are there already, and where new ones go; or None.

  Raises:
    NLAError: there is no suite of that name.
    PreemptedError: the machine is about to be taken away.
  """
  measured, left_out = _run(subject, suite_names(suites), kept)

  # The uncertainty of quantities comes last: their suites answer per row and know nothing of groups.
  found = _join(measured)
  metrics = _metrics(subject, found, bootstrap_samples or subject.settings.bootstrap_samples)
  if left_out:
    metrics[quantities.LEFT_OUT] = left_out
  return Report(metrics, subject.rows, _details(subject, found))


def answer(
  subject: Subject, names: Sequence[str], kept: Kept | None = None
) -> tuple[dict[str, Finding], dict[str, str]]:
  """Runs suites that answer questions, and no other.

  Args:
    subject: of `draw_subject`.
    names: of `suite.QUESTIONS`.
    kept: findings that are there already, and where new ones go; or None.

  Returns:
    The findings by suite, and why suites were left out.

  Raises:
    PreemptedError: the machine is about to be taken away.
  """
  measured, left_out = _run(subject, names, kept)
  return _join(measured).findings, left_out


def _run(
  subject: Subject, names: Sequence[str], kept: Kept | None
) -> tuple[list[Measured], dict[str, str]]:
  """What each suite measured, and why some were left out."""
  # All are loaded before the first explanation, so that a broken one costs nothing.
  chosen = {name: load_suite(name) for name in names}
  held = {name: kept.read(name) for name in names if kept and name in QUESTIONS}
  total = sum(suite.explanations(subject) for name, suite in chosen.items() if not held.get(name))
  if ALWAYS not in chosen:
    total += load_suite(ALWAYS).explanations(subject)  # whoever asks first has them drawn
  progress = Progress("eval", total, "explanation")

  def advance(done: int) -> None:
    # Every process must stop at the same batch: explaining is one program on all of them.
    progress.advance(done)
    if distributed.preempted():
      raise distributed.PreemptedError("eval stopped; it begins anew")

  # The subject keeps what one suite computed for the next, so a control costs little beside the round trip.
  subject = dataclasses.replace(subject, on_explained=advance)
  measured, left_out = [], {}
  for name, suite in chosen.items():
    if held.get(name):
      measured.append(Measured({}, findings={name: held[name]}))
      continue
    try:
      measured.append(suite.run(subject))
    except LeftOutError as reason:
      left_out[name] = str(reason)
      say(f"eval: the suite {name} is left out: {reason}")
      continue
    if kept and name in measured[-1].findings:
      kept.write(name, measured[-1].findings[name])
  progress.close()
  return measured, left_out


def _join(measured: Sequence[Measured]) -> Measured:
  """What all suites found, errors in the table's order."""
  errors, numbers, texts, by_n, answers = {}, {}, {}, {}, {}
  for one in measured:
    errors |= one.errors
    numbers |= one.numbers
    texts |= one.texts
    by_n |= one.by_n
    answers |= one.findings

  # Suites may run in any order; files and tables must not depend on it.
  order = list(quantities.QUANTITIES)
  ordered = {key: errors[key] for key in sorted(errors, key=order.index)}
  return Measured(ordered, numbers, texts, by_n, answers)


def _metrics(subject: Subject, found: Measured, samples: int) -> dict[str, Any]:
  """The content of metrics.json."""
  rows = breakdowns.Rows(subject.groups, subject.baseline, samples, subject.seed)
  metrics = rows.estimates(found.errors)

  # Everything that is no FVE, where the table says; then what FVE and intervals rest on.
  for key, number in found.numbers.items():
    quantities.put(metrics, key, number)
  for key, number in {"baseline_variance": subject.baseline, **rows.counts()}.items():
    quantities.put(metrics, key, number)
  metrics[quantities.COSINE] = {
    key: float(fve.cosine_of(error.mean())) for key, error in found.errors.items()
  }

  # The same of parts of the rows; what there is no part of has no section.
  suites = {name: findings.to_json(one) for name, one in found.findings.items()}
  parts = {
    quantities.BY_SOURCE: breakdowns.by_source(subject, rows, found.errors),
    quantities.BY_ROLE: breakdowns.by_role(subject, rows, found.errors),
    quantities.BY_POSITION: breakdowns.by_position(subject.words_before, rows, found.errors),
    quantities.BY_N: breakdowns.by_n(rows, found.by_n),
    quantities.SUITES: suites,
    quantities.LADDER: ladder.of_suites(suites),
  }
  return metrics | {name: part for name, part in parts.items() if part}


def _details(subject: Subject, found: Measured) -> list[dict[str, Any]]:
  """What `Report.details` holds."""
  tokenizer = subject.nla.pair.tokenizer
  per_row = {
    key: fve.fve_per_activation(error, subject.baseline) for key, error in found.errors.items()
  }
  cosines = fve.cosine_of(found.errors[quantities.HEADLINE])

  details = []
  for i, (document, at) in enumerate(zip(subject.documents, subject.positions.tolist())):
    before, token, after = in_context(tokenizer, document.tokens, at, _CONTEXT, _AFTER)
    details.append(
      {
        "document": document.id,
        "group": document.group,
        "position": at,
        "context_before": before,
        "token": token,
        "context_after": after,
        # The AV is not given it: kept to see whether short or long activations are explained worse.
        "norm": float(np.linalg.norm(subject.activations[i])),
        "cosine": float(cosines[i]),
        "texts": {key: texts[i] or "" for key, texts in found.texts.items()},
        "fve": {key: float(values[i]) for key, values in per_row.items()},
      }
    )
  return details


def _shown(row: dict[str, Any]) -> dict[str, Any]:
  """A row of `Report.details` as a person is shown it: without a score beside a text that is not there.

  What the AR makes of an empty text counts in the averages, as the error of an AV that said nothing.
  """
  silent = {key for key, text in row["texts"].items() if not text}
  scores = {key: None if key in silent else value for key, value in row["fve"].items()}
  cosine = None if quantities.HEADLINE in silent else row["cosine"]
  return row | {"fve": scores, "cosine": cosine}


def table(metrics: dict[str, Any]) -> str:
  """Writes the numbers of metrics.json as text for a terminal, one line each."""
  baseline = quantities.find(metrics, "baseline_variance")
  few = metrics["groups"] < intervals.FEW_GROUPS
  kind = "by Student's t, since they are so few" if few else "over groups"
  lines = [
    f"held-out FVE on {metrics['rows']} activations of {metrics['groups']} document groups "
    f"(95 % intervals {kind}; baseline variance {baseline.value:.3f})"
  ]
  measured = quantities.measured(metrics, "result", "difference", "reference", "retention")
  lines += [_line(one.quantity.name, one) for one in measured]
  for one in quantities.measured(metrics, "control"):
    lines.append(_line(f"control: {one.quantity.name}", one))

  # Of the differences, the least one decides whether the explanations mean something.
  above = quantities.above_controls(metrics)
  if above:
    closest = min(above, key=lambda one: one.value)
    lines.append(_line(f"above {closest.quantity.name} (paired)", closest))

  lines += _parts(metrics)
  for one in quantities.measured(metrics, "loss", "number"):
    unit = one.quantity.unit if one.quantity.unit != "share" else "of 1"
    lines.append(f"  {one.quantity.name:43s} {one.value:6.3f} {unit}".rstrip())
  for name, finding in findings.read_all(metrics.get(quantities.SUITES)).items():
    lines += findings.lines(name, finding)
  return "\n".join(lines)


def _parts(metrics: dict[str, Any]) -> list[str]:
  """Lines of the round trip by source, role and position, and by the number of explanations."""
  lines, alone = [], quantities.alone(metrics)
  for label, part in alone.items():
    lines += [
      _line(f"{label}: {one.quantity.name}", one) for one in quantities.measured(part, "result")
    ]
    if above := quantities.above_controls(part):
      closest = min(above, key=lambda one: one.value)
      lines.append(_line(f"{label}: above {closest.quantity.name} (paired)", closest))

  # Of all rows, then of each source and role.
  for label, whole in {"": metrics, **alone}.items():
    for name, part in quantities.parts(whole, quantities.BY_POSITION).items():
      before = f"{label}: " if label else ""
      at = quantities.measured(part, "result")
      lines += [_line(f"{before}positions {name}: {one.quantity.name}", one) for one in at]
  for n, part in quantities.parts(metrics, quantities.BY_N).items():
    for one in quantities.measured(part, "result"):
      lines.append(_line(f"n = {n}: {one.quantity.name}", one))
  return lines


def _line(label: str, one: Found) -> str:
  interval = "[one group: no interval]"
  if one.ci95:
    interval = f"[{one.ci95[0]:+.3f}, {one.ci95[1]:+.3f}]"
  return f"  {label:43s} {one.value:+.3f}  {interval}"
