"""Held-out evaluation of a pair: a subject is drawn, suites measure it, and what they find is joined.

`evaluate` is importable on its own; `nla eval` and the report use it. What is measured, under which name and by which
suite, stands in `nla_jax.quantities`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_jax import quantities
from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.data.store.store import Store
from nla_jax.evaluation import intervals
from nla_jax.evaluation.subject import Subject, draw_subject
from nla_jax.evaluation.suite import Measured, load_suites
from nla_jax.parallel import distributed
from nla_jax.progress import Progress
from nla_jax.quantities import Found

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
    return self.details[:n]

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
  rows: int = 500,
  seed: int = 0,
  batch: int = 64,
  bootstrap_samples: int = 2000,
) -> Report:
  """Evaluates a pair on held-out activations.

  Args:
    nla: an `nla_jax.autoencoder.nla.NLA`, of a run or loaded from anywhere.
    store: the activation store; its split `held_out` is evaluated, the others serve the controls (without any, those
      that need a training activation are left out).
    texts: the teacher's text by store row; without it, the teacher's-text FVE and retrieval are left out.
    before_rl: the pair before RL, to see what RL added; or None.
    rows: at most so many held-out rows, drawn with `seed`.
    seed: of the choice of rows, of the draws and of the bootstrap.
    batch: explanations sampled at once.
    bootstrap_samples: of the intervals, which resample document groups.

  Raises:
    NLAError: the store is of another width or layer than the pair, or has no split `held_out`.
    PreemptedError: the machine is about to be taken away; an evaluation begins anew.
  """
  subject = draw_subject(
    nla, store, texts=texts, before_rl=before_rl, rows=rows, seed=seed, batch=batch
  )
  return measure(subject, bootstrap_samples=bootstrap_samples)


def measure(
  subject: Subject, suites: Sequence[str] | None = None, *, bootstrap_samples: int = 2000
) -> Report:
  """Measures a subject: 1. suites are loaded, 2. each runs, 3. what they found becomes metrics and examples.

  Args:
    subject: of `draw_subject`.
    suites: names of suites; `reconstruction` runs in any case, and all of the table where None.
    bootstrap_samples: of the intervals.

  Raises:
    NLAError: there is no suite of that name.
    PreemptedError: the machine is about to be taken away.
  """
  # 1. Before the first explanation, so that a wrong name costs nothing.
  chosen = load_suites(suites)
  total = sum(suite.explanations(subject) for suite in chosen)
  progress = Progress("eval", total, "explanation")

  def advance(done: int) -> None:
    # Every process must stop at the same batch: explaining is one program on all of them.
    progress.advance(done)
    if distributed.preempted():
      raise distributed.PreemptedError("eval stopped; it begins anew")

  # 2. The subject keeps what one suite computed for the next, so a control costs little beside the round trip.
  subject = dataclasses.replace(subject, on_explained=advance)
  measured = [suite.run(subject) for suite in chosen]
  progress.close()

  # 3. The uncertainty comes last: suites answer per row and know nothing of groups.
  found = _join(measured)
  metrics = _metrics(subject, found, bootstrap_samples)
  return Report(metrics, subject.rows, _details(subject, found))


def _join(measured: Sequence[Measured]) -> Measured:
  """What all suites found, errors in the table's order."""
  errors, numbers, texts = {}, {}, {}
  for one in measured:
    errors |= one.errors
    numbers |= one.numbers
    texts |= one.texts

  # Suites may run in any order; files and tables must not depend on it.
  order = list(quantities.QUANTITIES)
  return Measured({key: errors[key] for key in sorted(errors, key=order.index)}, numbers, texts)


def _metrics(subject: Subject, found: Measured, samples: int) -> dict[str, Any]:
  """The content of metrics.json."""
  groups, baseline, errors = subject.groups, subject.baseline, found.errors
  options = {"samples": samples, "seed": subject.seed}

  # The same seed for every estimate: the same groups are drawn, so rows of a table stay comparable.
  def above(error: np.ndarray) -> dict[str, Any]:
    round_trip = errors[quantities.HEADLINE]
    return intervals.paired_bootstrap(round_trip, error, groups, baseline, **options).to_dict()

  metrics = {}
  for key, error in errors.items():
    quantities.put(metrics, key, intervals.bootstrap(error, groups, baseline, **options).to_dict())
  controls = metrics.get(quantities.SECTIONS["control"], {})
  metrics[quantities.ABOVE_CONTROL] = {key: above(errors[key]) for key in controls}
  if "round_trip_sft" in errors:
    quantities.put(metrics, "gain_of_rl", above(errors["round_trip_sft"]))

  # Everything that is no FVE, where the table says; then what FVE and intervals rest on.
  for key, number in found.numbers.items():
    quantities.put(metrics, key, number)
  quantities.put(metrics, "baseline_variance", baseline)
  quantities.put(metrics, "rows", subject.n)
  quantities.put(metrics, "groups", len(set(groups.tolist())))
  metrics[quantities.COSINE] = {
    key: float(fve.cosine_of(error.mean())) for key, error in errors.items()
  }
  return metrics


def _details(subject: Subject, found: Measured) -> list[dict[str, Any]]:
  """What `Report.details` holds."""
  tokenizer = subject.nla.pair.tokenizer
  per_row = {
    key: fve.fve_per_activation(error, subject.baseline) for key, error in found.errors.items()
  }
  cosines = fve.cosine_of(found.errors[quantities.HEADLINE])

  # Special tokens would show as markup that the document never had.
  def decode(ids: np.ndarray) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)

  details = []
  for i, (document, at) in enumerate(zip(subject.documents, subject.positions.tolist())):
    details.append(
      {
        "document": document.id,
        "group": document.group,
        "position": at,
        "context_before": decode(document.tokens[max(at - _CONTEXT, 0) : at]),
        "token": decode(document.tokens[at : at + 1]),
        "context_after": decode(document.tokens[at + 1 : at + 1 + _AFTER]),
        # The AV is not given it: kept to see whether short or long activations are explained worse.
        "norm": float(np.linalg.norm(subject.activations[i])),
        "cosine": float(cosines[i]),
        "texts": {key: texts[i] or "" for key, texts in found.texts.items()},
        "fve": {key: float(values[i]) for key, values in per_row.items()},
      }
    )
  return details


def table(metrics: dict[str, Any]) -> str:
  """Writes the numbers of metrics.json as text for a terminal, one line each."""
  baseline = quantities.find(metrics, "baseline_variance")
  lines = [
    f"held-out FVE on {metrics['rows']} activations of {metrics['groups']} document groups "
    f"(95 % intervals over groups; baseline variance {baseline.value:.3f})"
  ]
  measured = quantities.measured(metrics, "result", "difference", "reference")
  lines += [_line(one.quantity.name, one) for one in measured]
  for one in quantities.measured(metrics, "control"):
    lines.append(_line(f"control: {one.quantity.name}", one))

  # Of the differences, the least one decides whether the explanations mean something.
  above = quantities.above_controls(metrics)
  if above:
    closest = min(above, key=lambda one: one.value)
    lines.append(_line(f"above {closest.quantity.name} (paired)", closest))

  for one in quantities.measured(metrics, "loss", "number"):
    unit = one.quantity.unit if one.quantity.unit != "share" else "of 1"
    lines.append(f"  {one.quantity.name:43s} {one.value:6.3f} {unit}".rstrip())
  return "\n".join(lines)


def _line(label: str, one: Found) -> str:
  interval = "[one group: no interval]"
  if one.ci95:
    interval = f"[{one.ci95[0]:+.3f}, {one.ci95[1]:+.3f}]"
  return f"  {label:43s} {one.value:+.3f}  {interval}"
