"""What judges are given to read, row by row; and the logit lens against its definition."""

import numpy as np
import pytest
from support.speaking_pair import SpeakingNLA, Tokenizer, write_store

from nla_jax.evaluation import readings, rivals
from nla_jax.evaluation.judges import panel
from nla_jax.evaluation.subject import draw_subject

EXPLANATION = "Next: a, b\n\nAbout: boats, {}\n\nEnds: here"


@pytest.fixture
def subject(tmp_path, monkeypatch):
  monkeypatch.setattr(rivals, "texts", lambda subject, v: {"logit_lens": ["?"] * len(v)})
  tokenizer = Tokenizer()
  store = write_store(tmp_path / "store", tokenizer)
  nla = SpeakingNLA(lambda words, at: EXPLANATION.format(words[at]), tokenizer, store)
  texts = {row: f"teacher of {row}" for row in range(len(store))}
  return draw_subject(nla, store, texts=texts, before_rl=None, rows=20)


def test_every_row_is_of_its_own_item(subject):
  index = np.array([3, 0, 7])
  found = readings.of_rows(subject, index)
  for j, i in enumerate(index):
    words = subject.nla.tokenizer.decode(subject.documents[i].tokens).split()
    at = subject.positions[i]
    assert found["explanation"][j] == found["greedy"][j] == EXPLANATION.format(words[at])
    assert found["teacher"][j] == f"teacher of {subject.rows[i]}"
    assert found["topic_words"][j] == f"boats, {words[at]}"
    assert found["last_token"][j] == words[at]
    # Eight words, as many as the explanation has.
    assert found["last_words"][j].split() == words[at - 7 : at + 1]
    assert found["last_4_words"][j].split() == words[at - 3 : at + 1]
    assert found["last_16_words"][j].split() == words[at - 15 : at + 1]
    assert found["skyline"][j].split() == words[: at + 1]
    other = subject.other_rows[i]
    assert found["shuffled"][j] == subject.sampled.texts[other]
    assert subject.groups[other] != subject.groups[i]
  assert found["empty"] == ["", "", ""]
  # Of the training row whose activation is nearest; none of those that are evaluated.
  training = {f"teacher of {row}" for row in subject.training_rows}
  assert set(found["retrieval"]) <= training


def test_what_the_subject_lacks_has_no_row(tmp_path, subject):
  bare = draw_subject(subject.nla, subject.store, texts=None, before_rl=None, rows=8)
  bare.nla.says = lambda words, at: "no line of topics"
  found = readings.of_rows(bare, np.arange(4))
  assert not {"before_rl", "teacher", "retrieval", "next_tokens", "topic_words"} & found.keys()


def test_the_first_tokens_of_a_text():
  tokenizer = Tokenizer()
  assert readings.first_tokens(tokenizer, ["a b c", "a", None], 2) == ["a b", "a", ""]


def test_references_are_pieces_of_documents_that_are_not_evaluated(subject):
  texts = panel.reference_texts(subject)
  assert texts and all("g4" in text.split() for text in texts)
