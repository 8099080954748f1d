"""The first rows of a subject are one subject for all suites, and nothing of them is sampled twice."""

import numpy as np
from support.coded_pair import honest, toy_subject

from nla_jax.evaluation import variants
from nla_jax.evaluation.subject import Explanations


def test_the_first_rows_share_what_was_sampled():
  subject = toy_subject(honest, False)
  subject.__dict__["greedy"] = Explanations(["Next: a"] * subject.n, np.ones(subject.n))
  few = variants.first_rows(subject, 10)
  assert few is variants.first_rows(subject, 10) and variants.first_rows(subject, 999) is subject
  assert few.n == 10 and few.sampled.texts == subject.sampled.texts[:10]
  assert np.array_equal(few.rebuilt, subject.rebuilt[:10])
  assert variants.texts_by_row(few).keys() == {"explanation", "greedy", "teacher"}


def test_only_texts_that_a_transform_changed_are_read_again():
  subject, read = toy_subject(honest, False), []
  reconstruct = subject.nla.reconstruct

  def watched(texts, batch):
    read.extend(texts)
    return reconstruct(texts, batch)

  subject.nla.reconstruct = watched
  texts = list(subject.sampled.texts)
  texts[3], texts[5] = "About: large, quick, warm", None
  reader = variants.readers(subject)[0]
  errors = variants.errors_of_texts(subject, texts, reader)
  assert read == [one for one in (texts[3], texts[5]) if one != subject.sampled.texts[3]]
  plain = variants.plain_errors(subject, reader)
  assert np.array_equal(np.delete(errors, [3, 5]), np.delete(plain, [3, 5]))


def test_retention_is_measured_from_what_nothing_gives():
  subject = toy_subject(honest, False)
  reader = variants.readers(subject)[0]
  empty, plain = variants.empty_errors(subject, reader), variants.plain_errors(subject, reader)
  assert variants.retention_of(subject, empty, reader).value == 0
  assert variants.retention_of(subject, plain, reader).value == 1
  half = variants.retention_of(subject, (empty + plain) / 2, reader)
  assert abs(half.value - 0.5) < 1e-9 and half.n == subject.n
  some = np.arange(subject.n) < 16
  assert variants.retention_of(subject, plain, reader, some).n == 16
  assert variants.retention_of(subject, plain, reader, ~np.ones(subject.n, bool)) is None
