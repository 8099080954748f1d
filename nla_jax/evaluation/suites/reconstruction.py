"""Round trips: what the AR rebuilds from explanations, sampled, greedy and before RL, and from the teacher's text.

An explanation that does not parse or hits the cap is scored as what the AR makes of an empty one: it is counted, not
left out.
"""

import jax
import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.rows import encode_answers
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite
from nla_jax.parallel import sharding
from nla_jax.training import losses

_LOSS_BATCH = 32  # rows scored at once


def run(subject: Subject) -> Measured:
  """Measures every round trip that the subject allows, and how the AV writes."""
  sampled, greedy = subject.sampled, subject.greedy
  round_trip = subject.errors(subject.rebuilt)
  errors = {"round_trip": round_trip, "greedy": subject.score(greedy.texts)}
  texts = {"round_trip": sampled.texts, "greedy": greedy.texts}

  # Counted over all answers, parsed or not.
  numbers = {
    "parse_rate": float(np.mean([text is not None for text in sampled.texts])),
    "tokens_mean": float(np.mean(sampled.lengths)),
    "distinct": len(set(sampled.texts)) / subject.n,
    "fve_inflated": fve.fve_inflated(round_trip, subject.activations),
  }

  if subject.teacher_texts is not None:
    texts["teacher_text"] = subject.teacher_texts
    errors["teacher_text"] = subject.score(subject.teacher_texts)
    numbers |= av_losses(subject)

  if subject.before_rl is not None:
    # Each AV is read by the AR that was trained with it: what RL added is of the pair.
    texts["round_trip_sft"] = subject.sampled_before_rl.texts
    errors["round_trip_sft"] = subject.score(texts["round_trip_sft"], subject.before_rl)
  return Measured(errors, numbers, texts)


def explanations(subject: Subject) -> int:
  """Counts the explanations: sampled, greedy, and before RL."""
  return subject.n * (2 if subject.before_rl is None else 3)


def av_losses(subject: Subject) -> dict[str, float]:
  """Nats a token of the teacher's text, given each row's own activation and given another row's."""
  nla, pair = subject.nla, subject.nla.pair
  answers = encode_answers(pair.prompts, pair.tokenizer, subject.teacher_texts)

  @jax.jit
  def loss(params, rows):
    scores = pair.score_answers(params, rows["activations"], rows["tokens"])
    return losses.sft_loss(scores, rows["mask"])

  def mean(vectors: np.ndarray) -> float:
    found, weights = [], []
    for start in range(0, len(vectors), _LOSS_BATCH):
      # The last batch is filled up with copies that the mask leaves out, so that one shape is compiled.
      wanted = np.arange(start, start + _LOSS_BATCH)
      index = np.minimum(wanted, len(vectors) - 1)
      mask = answers.mask[index] & (wanted < len(vectors))[:, None]
      rows = {
        "activations": np.asarray(vectors[index], np.float32),
        "tokens": answers.tokens[index],
        "mask": mask,
      }
      found.append(float(loss(nla.av_params, sharding.shard_rows(rows))))
      weights.append(mask.sum())
    return float(np.average(found, weights=weights))

  return {
    "loss_own": mean(subject.activations),
    "loss_shuffled": mean(subject.activations[subject.other_rows]),
  }


SUITE = Suite(run, explanations)
