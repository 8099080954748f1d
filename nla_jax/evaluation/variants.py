"""The sampled explanations after each transform, and what each AR rebuilds from them: computed once a subject.

The one place of retention: the suites `retention` and `steganography` both read it.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.evaluation import transforms
from nla_jax.evaluation.intervals import Estimate, bootstrap_ratio
from nla_jax.evaluation.subject import Explanations, Subject
from nla_jax.evaluation.thesaurus import load_synonyms

FIXED = "AR before RL"  # SFT showed it the teacher's text alone: it has not read a word of an AV
_SAMPLED = (
  "sampled",
  "greedy",
  "sampled_before_rl",
)  # of a subject, where a suite has asked for them


class Reader(NamedTuple):
  """An AR that reads the AV's words.

  Attributes:
    name: as tables show it.
    nla: the pair whose AR reads.
  """

  name: str
  nla: NLA


def first_rows(subject: Subject, n: int) -> Subject:
  """The first n rows of a subject, the same one for every suite that asks; rows are in random order."""
  if n >= subject.n:
    return subject
  if ("first", n) not in subject.kept:
    few = dataclasses.replace(
      subject,
      rows=subject.rows[:n],
      activations=subject.activations[:n],
      documents=subject.documents[:n],
      positions=subject.positions[:n],
    )

    # What is sampled is not sampled again; what is not, is drawn for these rows alone, and comes out the same.
    for name in _SAMPLED:
      if name in subject.__dict__:
        texts, lengths = getattr(subject, name)
        few.__dict__[name] = Explanations(texts[:n], lengths[:n])
    if "rebuilt" in subject.__dict__:
      few.__dict__["rebuilt"] = subject.rebuilt[:n]
    subject.kept["first", n] = few
  return subject.kept["first", n]


def texts_by_row(subject: Subject) -> dict[str, list[str | None]]:
  """Texts of the subject's rows by row of a suite's table: of the AV, of the AV before RL, of the teacher.

  Greedy ones are there where a suite has drawn them.
  """
  found = {"explanation": subject.sampled.texts}
  if "greedy" in subject.__dict__:
    found["greedy"] = subject.greedy.texts
  if subject.before_rl is not None:
    found["before_rl"] = subject.sampled_before_rl.texts
  return found if subject.teacher_texts is None else {**found, "teacher": subject.teacher_texts}


def readers(subject: Subject) -> list[Reader]:
  """The AR that is evaluated, and one that never read the AV's words, where there is one."""
  # Before RL the evaluated AR is such a one itself.
  fixed = subject.fixed_critic
  return [Reader("AR", subject.nla), *([Reader(FIXED, fixed)] if fixed is not None else [])]


def texts_of(subject: Subject, name: str) -> list[str | None] | None:
  """The sampled explanations after a transform; None where what it needs is not installed."""
  key = ("texts", name)

  if key not in subject.kept:
    transform = transforms.transform(name)
    subject.kept[key] = transforms.applied(transform, subject.sampled.texts, material(subject))
  return subject.kept[key]


def material(subject: Subject) -> transforms.Material:
  """What the transforms work with."""
  if "material" not in subject.kept:
    subject.kept["material"] = transforms.material_of(subject, load_synonyms())
  return subject.kept["material"]


def changed(subject: Subject, name: str) -> float:
  """Share of the explanations that a transform changes."""
  pairs = zip(texts_of(subject, name), subject.sampled.texts)
  return float(np.mean([new != old for new, old in pairs]))


def errors_of(subject: Subject, name: str, reader: Reader) -> np.ndarray:
  """[n] mse_nrm of what an AR rebuilds from the explanations after a transform."""
  key = ("errors", name, reader.name)
  if key not in subject.kept:
    subject.kept[key] = errors_of_texts(subject, texts_of(subject, name), reader)
  return subject.kept[key]


def errors_of_texts(subject: Subject, texts: list[str | None], reader: Reader) -> np.ndarray:
  """[n] the same of any texts of these rows; only those that differ from the explanations are read anew."""
  errors = plain_errors(subject, reader).copy()

  # Most transforms leave some texts as they are, and an AR gives the same for the same.
  pairs = enumerate(zip(texts, subject.sampled.texts))
  rows = np.array([i for i, (new, old) in pairs if new != old], np.int64)

  if rows.size:
    rebuilt = reader.nla.reconstruct([texts[i] for i in rows], batch=subject.batch)
    errors[rows] = np.asarray(fve.mse_nrm(rebuilt, subject.activations[rows]))
  return errors


def plain_errors(subject: Subject, reader: Reader) -> np.ndarray:
  """[n] the same of the explanations as they are."""
  key = ("errors", "", reader.name)
  if key not in subject.kept:
    own = reader.nla is subject.nla
    texts = subject.sampled.texts

    # The round trip has read them already.
    found = subject.errors(subject.rebuilt) if own else subject.score(texts, reader.nla)
    subject.kept[key] = np.asarray(found, np.float64)
  return subject.kept[key]


def empty_errors(subject: Subject, reader: Reader) -> np.ndarray:
  """[n] the same of an empty explanation: what the AR assumes without being told."""
  key = ("errors", "empty", reader.name)
  if key not in subject.kept:
    # It is the same for every row, so it is read once.
    rebuilt = reader.nla.reconstruct([None], batch=1)
    repeated = np.repeat(rebuilt, subject.n, axis=0)
    subject.kept[key] = np.asarray(subject.errors(repeated), np.float64)
  return subject.kept[key]


def retention(subject: Subject, names: list[str], reader: Reader) -> Estimate | None:
  """R = (FVE after a transform − FVE of nothing) / (FVE − FVE of nothing), the mean over some transforms.

  A plain ratio of FVEs breaks where they are near zero or below. None where the words gave this AR nothing to keep.
  """
  after = np.mean([errors_of(subject, name, reader) for name in names], axis=0)
  return retention_of(subject, after, reader)


def retention_of(
  subject: Subject, after: np.ndarray, reader: Reader, rows: np.ndarray | None = None
) -> Estimate | None:
  """The same of any errors [n] after a change, of the subject's rows; `rows` [n] says which of them count."""
  rows = np.ones(subject.n, bool) if rows is None else rows
  if not rows.any():
    return None

  empty, settings = empty_errors(subject, reader), subject.settings
  return bootstrap_ratio(
    (empty - after)[rows],
    (empty - plain_errors(subject, reader))[rows],
    subject.groups[rows],
    samples=settings.bootstrap_samples,
    seed=settings.seed,
  )
