"""An answer without an explanation says why, and nothing beside it looks like a score."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.tokenizers_of_cases import AV, CHAT, FLAGGED, of_bytes

from nla_jax.autoencoder import answers
from nla_jax.autoencoder.answers import (
  Answer,
  check_answers,
  decode_answers,
  read_answer,
  taken_plain,
)
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.prompts import make_prompts, wrap_explanation
from nla_jax.autoencoder.tokens import check_vocabulary, encode, refuse_appended
from nla_jax.errors import NLAError

TAGGED = wrap_explanation("snow")


@pytest.mark.parametrize(
  ("raw", "finished", "tags", "text", "reason"),
  [
    (TAGGED, True, True, "snow", None),
    (TAGGED, True, False, "snow", None),
    (TAGGED, False, True, None, answers.CUT),
    ("snow", True, True, None, answers.NO_TAGS),
    ("snow", True, False, "snow", None),
    ("snow", False, False, None, answers.CUT),
    ("<explanation>snow", True, True, None, answers.UNCLOSED),
    ("<explanation>snow", True, False, None, answers.UNCLOSED),
    ("snow</explanation>", True, False, None, answers.NO_TAGS),
    ("<explanation> </explanation>", True, True, None, answers.EMPTY),
    (" \n", True, False, None, answers.EMPTY),
  ],
)
def test_an_answer_is_an_explanation_or_says_why_not(raw, finished, tags, text, reason):
  found = read_answer(raw, finished)
  assert (found if tags else taken_plain(found)) == Answer(raw, text, reason)


def test_a_prompt_says_whether_it_asks_for_tags():
  tokenizer = of_bytes()
  assert make_prompts(tokenizer).asks_for_tags and not make_prompts(tokenizer, AV).asks_for_tags


def test_tags_that_are_special_tokens_are_words_of_an_answer():
  tokenizer = of_bytes(special=(*FLAGGED, "<explanation>", "</explanation>"))
  ids = tokenizer(TAGGED + "<|im_end|>", add_special_tokens=False)["input_ids"]
  assert decode_answers(tokenizer, [ids]) == [TAGGED]
  check_answers(tokenizer, ids[-1:])


@pytest.mark.parametrize("plain", ["\n", "<", "s"])
def test_an_end_that_every_taught_answer_holds_is_refused(plain):
  tokenizer = of_bytes()
  with pytest.raises(NLAError, match="ends an answer by the model's files"):
    check_answers(tokenizer, encode(tokenizer, plain))


def test_a_tokenizer_that_does_not_give_an_answer_back_is_refused():
  tokenizer = of_bytes()
  tokenizer.decode = lambda ids, **options: "explanation snow"
  with pytest.raises(NLAError, match="does not come back from this tokenizer"):
    check_answers(tokenizer, ())


def test_a_tokenizer_that_appends_a_token_is_refused_before_anything_is_read():
  with pytest.raises(NLAError, match=r"puts '<\|endoftext\|>' behind every text.*add_eos_token"):
    make_prompts(of_bytes(appended="<|endoftext|>"), AV)
  refuse_appended(of_bytes())


def test_ids_beyond_the_embedding_are_refused_unless_no_text_can_hold_them():
  tokenizer = of_bytes(special=FLAGGED, added=("㈎",))
  check_vocabulary(tokenizer, len(tokenizer))
  with pytest.raises(NLAError, match=r"260 tokens, the model's embedding 259 rows.*from 259"):
    check_vocabulary(tokenizer, 259)

  # An image's token, which no template writes for a text.
  tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
  check_vocabulary(tokenizer, 260)


class _Pair(SimpleNamespace):
  """Answers as given; rebuilds every text as its first letter's axis, and an empty one as the first."""

  verbalizer = SimpleNamespace(architecture=SimpleNamespace(d_model=3))

  def sample_answers(self, params, vectors, key, *, batch, streams, greedy):
    given = [self.given[stream] for stream in streams]
    return list(given), np.ones(len(given), int)

  def reconstruct(self, params, texts, *, batch):
    return np.eye(3, dtype=np.float32)[["abc".index((text or "a")[0]) for text in texts]]


def explain(given, best_of=1, tags=True):
  nla = NLA(
    _Pair(given=given, prompts=SimpleNamespace(asks_for_tags=tags)), {}, {}, "", baseline=0.5
  )
  return nla.explain(
    np.eye(3, dtype=np.float32)[:1].repeat(len(given) // best_of, 0), best_of=best_of
  )


CUT = Answer("<explanation>on and", None, answers.CUT)
GOOD, BAD = Answer("…", "apt", None), Answer("…", "bad", None)


def test_a_none_has_its_reason_and_no_score(capsys):
  found = explain([CUT, GOOD, GOOD])
  assert (found[0].text, found[0].answer, found[0].reason) == (None, CUT.raw, answers.CUT)
  assert found[0].fve is found[0].cosine is found[0].mse_nrm is None
  assert found[1].fve == pytest.approx(1) and found[1].reason is None
  assert "warning" not in capsys.readouterr().err


def test_a_text_is_preferred_to_none_whatever_the_ar_makes_of_an_empty_one():
  (found,) = explain([CUT, BAD], best_of=2)
  assert found.text == "bad" and found.fve < 0


def test_a_plain_answer_is_taken_where_the_prompt_asks_for_no_tags(capsys):
  plain = Answer(" a word", None, answers.NO_TAGS)
  assert explain([plain])[0].text is None
  assert "warning" in capsys.readouterr().err
  (found,) = explain([plain], tags=False)
  assert (found.text, found.reason) == ("a word", None) and found.fve == pytest.approx(1)
  assert "warning" not in capsys.readouterr().err


def test_most_answers_without_an_explanation_are_one_warning(capsys):
  explain([CUT, CUT, GOOD])
  said = capsys.readouterr().err
  assert said.count("warning") == 1 and "2 of 3 answers" in said and answers.CUT in said


def test_who_draws_again_and_again_says_it_once(capsys):
  warn = answers.WarnOnce()
  for batch in ([GOOD], [CUT, CUT], [CUT], [GOOD, CUT, CUT]):
    warn(batch)
  said = capsys.readouterr().err
  assert said.count("warning") == 1 and "2 of 2 answers" in said


def test_a_pair_s_answers_are_read_without_what_ends_them():
  """The end is an added token without the flag, which decoding does not leave out."""
  from nla_jax.autoencoder.pair import Pair
  from nla_jax.decoding.loop import Rollout

  tokenizer = of_bytes(CHAT, special=FLAGGED[:2], added=("㈎", "<|im_end|>"))
  pair = Pair(None, None, make_prompts(tokenizer, AV), tokenizer, 1, 8)
  ids = np.array([[*encode(tokenizer, "snow"), pair.prompts.stop_id]], np.int32)
  rollout = Rollout(ids, ids, np.array([5], np.int32), np.array([True]))
  assert pair.read_answers(rollout) == [Answer("snow", None, answers.NO_TAGS)]
  assert pair.parse_answers(rollout._replace(finished=np.array([False]))) == [None]
