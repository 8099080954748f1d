"""Held-out evaluation of a pair: round trip, teacher's text, and every control on the same rows.

`evaluate` is importable on its own; `nla eval` and the report use it. An explanation that does not parse or hits the
cap is scored as what the AR makes of an empty one: it is counted, not left out.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.rows import encode_answers
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.evaluation import controls, intervals
from nla_jax.parallel import distributed, sharding
from nla_jax.progress import Progress
from nla_jax.training import sft

_CONTEXT = 80  # tokens shown before an example's position
_AFTER = 12  # and after
_TRAINING_ROWS = 50_000  # most training activations that controls look at


@dataclasses.dataclass(frozen=True)
class Report:
  """What an evaluation found.

  Attributes:
    metrics: the content of metrics.json.
    rows: [n] store rows evaluated.
    details: per row: explanations, errors, contexts.
  """

  metrics: dict[str, Any]
  rows: np.ndarray
  details: list[dict[str, Any]]

  def examples(self, n: int) -> list[dict[str, Any]]:
    """The first `n` rows (their order is random) with their words."""
    return self.details[:n]

  def per_row(self) -> dict[str, list]:
    """Columns for the report's charts."""
    names = {
      "fve_round_trip": "fve",
      "fve_teacher_text": "fve_teacher",
      "fve_shuffled": "fve_shuffled",
      "norm": "norm",
      "position": "position",
    }
    return {
      name: [row[key] for row in self.details]
      for name, key in names.items()
      if key in self.details[0]
    }


def evaluate(
  nla,
  store: Store,
  *,
  texts: dict[int, str] | None = None,
  before_rl=None,
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
  """
  pair = nla.pair
  if store.d != pair.verbalizer.architecture.d_model:
    raise NLAError(
      f"the store's activations are {store.d} wide, this pair's model is "
      f"{pair.verbalizer.architecture.d_model} wide: they do not belong together"
    )
  if store.manifest.get("layer", pair.layer) != pair.layer:
    raise NLAError(
      f"the store holds the output of block {store.manifest['layer']}, this pair explains block "
      f"{pair.layer}: extract that block, or take the pair of the other"
    )
  random = np.random.default_rng(seed)
  chosen = random.permutation(store.rows("held_out"))[:rows]
  rest = [
    store.rows(split) for split in ("av_sft", "ar_sft", "rl") if split in store.documents.splits
  ]
  training = np.sort(
    random.permutation(np.concatenate([np.empty(0, np.int64), *rest]))[:_TRAINING_ROWS]
  )
  golds, known = store.read("activations", chosen), store.read("activations", training)
  documents, positions = store.read("document", chosen), store.read("position", chosen)
  groups = np.array([store.documents[int(i)].group for i in documents])
  last_token = lambda which: np.array(
    [
      store.documents[int(i)].tokens[p]
      for i, p in zip(store.read("document", which), store.read("position", which))
    ]
  )
  b = fve.baseline_variance(golds)
  n, d = golds.shape
  key = jax.random.key(seed)

  others = controls.other_rows(n, groups, seed)
  few = min(n, batch)

  def advance(done: int) -> None:
    progress.advance(done)
    if distributed.preempted():
      raise distributed.PreemptedError("eval stopped; it begins anew")

  blind = {"zero_vector": np.zeros(d)} | (
    {"mean_vector": fve.normalise(known).mean(axis=0)} if len(known) else {}
  )
  progress = Progress(
    "eval", n * (3 if before_rl is not None else 2) + len(blind) * few, "explanation"
  )
  explain = lambda who, vectors, number, greedy=False: who.pair.sample_explanations(
    who.av_params,
    vectors,
    jax.random.fold_in(key, number),
    batch=batch,
    greedy=greedy,
    on_batch=advance,
  )
  error = lambda who, words: np.asarray(fve.mse_nrm(who.reconstruct(words, batch=batch), golds))

  sampled, lengths = explain(nla, golds, 0)
  greedy, _ = explain(nla, golds, 1, greedy=True)
  rebuilt = nla.reconstruct(sampled, batch=batch)
  errors = {"round_trip": np.asarray(fve.mse_nrm(rebuilt, golds)), "greedy": error(nla, greedy)}
  control = {"shuffled_vector": np.asarray(fve.mse_nrm(rebuilt[others], golds))}
  for number, (name, vector) in enumerate(blind.items(), 2):
    words, _ = explain(nla, np.repeat(vector[None], few, axis=0), number)
    control[name] = error(nla, [words[i % few] for i in range(n)])
  control["empty_text"] = error(nla, [None] * n)
  if texts is not None:
    taught = [texts[int(row)] for row in chosen]
    errors["teacher_text"] = error(nla, taught)
    explained = np.array([int(row) in texts for row in training], bool)
    if explained.any():
      nearest = training[explained][controls.nearest_rows(golds, known[explained])]
      control["retrieval"] = error(nla, [texts[int(row)] for row in nearest])
  if len(known):
    control["mean_per_last_token"] = np.asarray(
      fve.mse_nrm(
        controls.mean_per_last_token(known, last_token(training), last_token(chosen)), golds
      )
    )
  if before_rl is not None:
    sampled_before, _ = explain(before_rl, golds, 0)
    errors["round_trip_sft"] = error(before_rl, sampled_before)
  progress.close()

  estimate = lambda e: intervals.bootstrap(
    e, groups, b, samples=bootstrap_samples, seed=seed
  ).to_dict()
  paired = lambda e: intervals.paired_bootstrap(
    errors["round_trip"], e, groups, b, samples=bootstrap_samples, seed=seed
  ).to_dict()
  found = {
    "fve": {name: estimate(e) for name, e in errors.items()},
    "controls": {name: estimate(e) for name, e in control.items()},
    "above_control": {
      name: paired(e) for name, e in control.items()
    },  # the round trip less each, on the same rows
    "parse_rate": float(np.mean([text is not None for text in sampled])),
    "tokens_mean": float(np.mean(lengths)),
    "distinct": len(set(sampled)) / n,
    "baseline_variance": b,
    "fve_inflated": fve.fve_inflated(errors["round_trip"], golds),
    "cosine": {name: float(1 - e.mean() / 2) for name, e in (*errors.items(), *control.items())},
    "rows": n,
    "groups": len(set(groups.tolist())),
  }
  if before_rl is not None:
    found["fve"]["gain_of_rl"] = paired(errors["round_trip_sft"])
  if texts is not None:
    found["av"] = _av_losses(nla, golds, taught, others)

  per = lambda e, i: float(1 - e[i] / b)
  details = []
  for i in range(n):
    document, position = store.documents[int(documents[i])], int(positions[i])
    decode = lambda ids: pair.tokenizer.decode(ids, skip_special_tokens=True)
    row = {
      "document": document.id,
      "group": document.group,
      "position": position,
      "context_before": decode(document.tokens[max(position - _CONTEXT, 0) : position]),
      "token": decode(document.tokens[position : position + 1]),
      "context_after": decode(document.tokens[position + 1 : position + 1 + _AFTER]),
      "explanation": sampled[i] or "",
      "fve": per(errors["round_trip"], i),
      "cosine": float(1 - errors["round_trip"][i] / 2),
      "greedy_explanation": greedy[i] or "",
      "fve_greedy": per(errors["greedy"], i),
      "fve_shuffled": per(control["shuffled_vector"], i),
      "norm": float(np.linalg.norm(golds[i])),
    }
    if before_rl is not None:
      row |= {
        "explanation_before_rl": sampled_before[i] or "",
        "fve_before_rl": per(errors["round_trip_sft"], i),
      }
    if texts is not None:
      row |= {"teacher_text": taught[i], "fve_teacher": per(errors["teacher_text"], i)}
    details.append(row)
  return Report(found, chosen, details)


def _av_losses(
  nla, golds: np.ndarray, taught: list[str], others: np.ndarray, batch: int = 32
) -> dict[str, float]:
  """Nats a token of the teacher's text, given each row's own vector and given another row's."""
  pair = nla.pair
  answers = encode_answers(pair.prompts, pair.tokenizer, taught)
  score = jax.jit(lambda params, rows: sft.av_loss(params, rows, pair))

  def mean(vectors: np.ndarray) -> float:
    found, weights = [], []
    for start in range(0, len(vectors), batch):
      index = np.minimum(np.arange(start, start + batch), len(vectors) - 1)
      mask = answers.mask[index] & (np.arange(start, start + batch) < len(vectors))[:, None]
      rows = {
        "activations": np.asarray(vectors[index], np.float32),
        "tokens": answers.tokens[index],
        "mask": mask,
      }
      found.append(float(score(nla.av_params, sharding.shard_rows(rows))))
      weights.append(mask.sum())
    return float(np.average(found, weights=weights))

  return {"loss_own": mean(golds), "loss_shuffled": mean(golds[others])}


_LABELS = {
  "round_trip": "round trip, temperature 1",
  "greedy": "round trip, greedy",
  "teacher_text": "AR on the teacher's text",
  "round_trip_sft": "round trip before RL",
  "gain_of_rl": "gain of RL (paired)",
}


def table(found: dict[str, Any]) -> str:
  """The numbers as text, one line each, for a terminal."""
  lines = [
    f"held-out FVE on {found['rows']} activations of {found['groups']} document groups "
    f"(95 % intervals over groups; baseline variance {found['baseline_variance']:.3f})"
  ]
  measured = [
    (label, found["fve"][name]) for name, label in _LABELS.items() if name in found["fve"]
  ]
  for label, e in measured + [(f"control: {name}", e) for name, e in found["controls"].items()]:
    interval = (
      f"[{e['ci95'][0]:+.3f}, {e['ci95'][1]:+.3f}]" if e["ci95"] else "[one group: no interval]"
    )
    lines.append(f"  {label:32s} {e['value']:+.3f}  {interval}")
  closest, gap = min(found["above_control"].items(), key=lambda item: item[1]["value"])
  if gap["ci95"]:
    label, (low, high) = f"above {closest} (paired)", gap["ci95"]
    lines.append(f"  {label:32s} {gap['value']:+.3f}  [{low:+.3f}, {high:+.3f}]")
  if "av" in found:
    av = found["av"]
    lines.append(
      f"  AV loss, own vector {av['loss_own']:.3f}, shuffled {av['loss_shuffled']:.3f} nats a token"
    )
  lines.append(
    f"  parse rate {found['parse_rate']:.3f}, mean length {found['tokens_mean']:.1f} tokens"
  )
  return "\n".join(lines)
