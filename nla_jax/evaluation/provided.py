"""Retention under the paper's six transforms, by a language model; a row whose rewrite fails a check does not count."""

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.evaluation import variants
from nla_jax.evaluation.findings import Gate, Score
from nla_jax.evaluation.judges.language_model import Asks
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.transforms.rewrites import Rewritten, rewrite, rewrites

HEADLINE = "mean of meaning-preserving rewrites"
_USABLE = 0.8  # of the answers that must pass, or the language model cannot do that transform


def retained(subject: Subject, client: Asks) -> tuple[list[Score], list[Gate]]:
  """Cells of the suite's table and a gate for each transform; one failed gate where the provider does not answer."""
  texts = subject.sampled.texts
  try:
    found = {one.name: rewrite(client, one, texts) for one in rewrites()}
  except NLAError as error:
    # What is offline must not be lost with it; what was answered is kept and not paid for again.
    return [], [Gate("rewrites by provider", False, str(error))]
  gates = [_gate(name, texts, written) for name, written in found.items()]

  scores = []
  for reader in variants.readers(subject):
    column = f"retention, {reader.name}"
    errors = {
      name: variants.errors_of_texts(subject, written.texts, reader)
      for name, written in found.items()
    }
    for name, written in found.items():
      scores += _cell(subject, name, column, errors[name], reader, written.usable)

    # The mean is of rows that every one of them could be done to.
    kept = [one.name for one in rewrites() if one.preserves]
    rows = np.all([found[name].usable for name in kept], axis=0)
    mean = np.mean([errors[name] for name in kept], axis=0)
    scores += _cell(subject, HEADLINE, column, mean, reader, rows)
  return scores, gates


def _cell(subject: Subject, row: str, column: str, errors, reader, rows) -> list[Score]:
  one = variants.retention_of(subject, errors, reader, rows)
  return [] if one is None else [Score(row, column, one.value, one.ci95, one.n)]


def _gate(name: str, texts, written: Rewritten) -> Gate:
  asked = sum(bool(text) for text in texts)
  passed = int(written.usable.sum())
  why = ", ".join(f"{reason} {n}" for reason, n in written.failures.items())
  detail = f"{passed} of {asked} answers pass" + (f"; failed: {why}" if why else "")
  return Gate(f"rewrite, {name}", passed >= _USABLE * max(asked, 1), detail)
