"""The last words end with the explained token and are as long as the explanation."""

import numpy as np
import pytest
from support.known_pair import ROWS, KnownNLA, write_store

from nla_jax.evaluation import harness
from nla_jax.evaluation.subject import draw_subject
from nla_jax.evaluation.suites.baselines import last_words


@pytest.mark.parametrize(
  "position, length, expected",
  [(4, 2, [13, 14]), (4, 1, [14]), (4, 0, []), (1, 9, [10, 11]), (0, 1, [10])],
)
def test_the_tail_ends_with_the_explained_token(position, length, expected):
  assert last_words.last_tokens(np.arange(10, 20), position, length).tolist() == expected


class Talkative(KnownNLA):
  """Its explanation of activation 7 is as many words as 7 modulo 4."""

  def name(self, vector):
    return " ".join([super().name(vector)] * (int(super().name(vector)) % 4))


def _read(tmp_path, nla):
  """What the AR read as last words, and the subject."""
  subject = draw_subject(
    nla,
    write_store(tmp_path / "store"),
    texts=None,
    before_rl=None,
    rows=ROWS,
    seed=0,
    batch=ROWS,
  )
  report = harness.measure(subject, ["baselines.last_words"], bootstrap_samples=20)
  assert report.metrics["controls"].keys() == {"last_words"}
  return nla.read[-1], subject


def test_each_row_reads_its_own_context_at_the_length_of_its_own_explanation(tmp_path):
  texts, subject = _read(tmp_path, Talkative())
  lengths = set()
  for text, row, document, position in zip(
    texts, subject.rows, subject.documents, subject.positions
  ):
    length = int(row) % 4
    words = [str(i) for i in document.tokens[: position + 1][::-1][:length][::-1] if i >= 3]
    assert text.split() == words
    lengths.add(len(words))
  assert lengths == {0, 1, 2, 3}


def test_without_an_explanation_there_is_no_word_and_no_av_is_asked(tmp_path):
  nla = KnownNLA(silent=[str(i) for i in range(ROWS)])
  texts, _ = _read(tmp_path, nla)
  assert texts == [""] * ROWS
  assert [greedy for _, greedy in nla.draws] == [False, True]  # the round trip's own
