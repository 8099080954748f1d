"""One door for texts: what is no character is refused, what steers a model stays words, cut characters are left out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ml_collections import ConfigDict
from support.tokenizers_of_cases import CHAT, of_bytes, with_blank_first
from tokenizers import AddedToken, Tokenizer, decoders, models, trainers
from transformers import PreTrainedTokenizerFast

from nla_jax.autoencoder import text as text_lib
from nla_jax.autoencoder.chat import render
from nla_jax.autoencoder.prompts import encode, make_prompts
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.cli.main import main
from nla_jax.data.corpora.read import read_corpus
from nla_jax.data.teachers.file import read_teacher_file
from nla_jax.data.teachers.readout import TopicWords, readout
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer

HALF, OTHER_HALF = "\ud83d", "\ude00"


@pytest.fixture(scope="module")
def tokenizer():
  return byte_tokenizer()


@pytest.fixture(scope="module")
def unflagged():
  """A tokenizer with added tokens that lack the special flag, words and blanks among them."""
  found = byte_tokenizer()
  found.add_tokens(
    [AddedToken(one, special=False, normalized=False) for one in ("<think>", "CRISPR", "   ")]
  )
  return found


@pytest.mark.parametrize("half", [HALF, OTHER_HALF])
@pytest.mark.parametrize(
  "row",
  [
    {"text": "before {} after"},
    {"text": "a", "id": "d{}"},
    {"text": "a", "group": "g{}"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{}"}]},
  ],
)
def test_half_a_surrogate_pair_is_named_with_its_line(row, half, tmp_path):
  path = tmp_path / "x.jsonl"
  odd = json.dumps(row).replace("{}", json.dumps(half)[1:-1])
  path.write_text(json.dumps({"text": "plain"}) + "\n" + odd + "\n")
  with pytest.raises(NLAError, match=r"x\.jsonl line 2 holds half of a surrogate pair") as caught:
    list(read_corpus(str(path)))
  assert "\n" not in str(caught.value)


def test_a_whole_pair_is_a_character(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text('{"text": "\\ud83d\\ude00"}\n')
  assert [one.text for one in read_corpus(str(path))] == ["😀"]


@pytest.mark.parametrize("row", [{"explanation": "words {}"}, {"explanation": "w", "doc_id": "{}"}])
def test_half_a_pair_in_a_teachers_file_is_named_with_its_line(row, tmp_path):
  path = tmp_path / "teacher.jsonl"
  whole = {"doc_id": "d", "position": 3, **row}
  path.write_text(json.dumps(whole).replace("{}", "\\ud83d"))
  with pytest.raises(NLAError, match=r"teacher\.jsonl line 1 holds half of a surrogate pair"):
    read_teacher_file(str(path))


def test_half_a_pair_is_refused_wherever_a_text_becomes_tokens(tokenizer):
  prompts = make_prompts(tokenizer, "Explain {injection_char}.", "<text>{explanation}</text>")
  for call in (
    lambda: encode(tokenizer, HALF),
    lambda: render(tokenizer, [{"role": "user", "content": HALF}]),
    lambda: prompts.ar_ids(tokenizer, HALF),
    lambda: prompts.answer_ids(tokenizer, HALF),
    lambda: make_prompts(tokenizer, HALF + "{injection_char}."),
  ):
    with pytest.raises(NLAError, match="half of a surrogate pair"):
      call()


def test_a_text_on_the_command_line_is_looked_at_before_the_pair_is_loaded(capsys):
  # What a shell hands over as bytes that are no UTF-8 comes as half pairs.
  assert main(["read", "--nla=/nowhere", "caf\udce9"]) == 2
  assert "half of a surrogate pair" in capsys.readouterr().err


def test_added_tokens_in_brackets_stay_words_without_the_flag(unflagged):
  think = unflagged.convert_tokens_to_ids("<think>")
  assert unflagged("<think>")["input_ids"] == [think]
  assert encode(unflagged, "a <think> b") == list(b"a <think> b".translate(_byte_ids(unflagged)))

  # What the template writes is interpreted, what a message says is not.
  unflagged.chat_template = "<think>{% for m in messages %}{{ m.content }}{% endfor %}"
  ids = render(unflagged, [{"role": "user", "content": "b<think>"}])
  assert ids.count(think) == 1 and ids[0] == think
  assert think in special_tokens(unflagged)


def _byte_ids(tokenizer) -> bytes:
  """The id of each byte that is an ASCII character."""
  ids = [tokenizer(chr(i))["input_ids"][0] if i < 128 else 0 for i in range(256)]
  return bytes(ids)


def test_added_words_and_blanks_are_tokens_of_a_text(unflagged):
  for word in ("CRISPR", "   "):
    assert encode(unflagged, word) == [unflagged.convert_tokens_to_ids(word)]
  assert not {unflagged.convert_tokens_to_ids("CRISPR")} & set(special_tokens(unflagged))


def test_tokens_that_are_added_later_are_known(tokenizer):
  later = byte_tokenizer()
  assert len(encode(later, "[END]")) == 5
  later.add_tokens([AddedToken("[END]", special=False)])
  assert len(encode(later, "[END]")) == 5


SCRIPTS = ("天地玄黄 宇宙洪荒", "नदी पुराने शहर", "👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷", "Река течёт", "naïve café")


@pytest.mark.parametrize("text", SCRIPTS)
def test_no_cut_character_is_taught_at_any_position(text, tokenizer):
  ids = encode(tokenizer, text)
  settings = ConfigDict({"next_tokens": 3, "topic_words": 2, "last_words": 2, "max_tokens": 200})
  topics = TopicWords([text, "other words"])
  for i in range(len(ids)):
    # The target predicts the token that follows, and one that no character holds.
    taught = readout(tokenizer, ids[: i + 1], [*ids[i + 1 : i + 2], ids[0]], topics, settings)
    assert "\ufffd" not in taught

    whole = text.encode()[: i + 1].decode(errors="ignore").split()
    assert taught.endswith(f'Ends: "{" ".join(whole[-2:])}"')


def test_a_prediction_that_completes_a_character_is_named_by_it(tokenizer):
  ids = encode(tokenizer, "a 天")
  assert text_lib.next_word(tokenizer, ids[:-1], ids[-1]) == "天"
  assert text_lib.next_word(tokenizer, ids[:-2], ids[-2]) == ""
  assert text_lib.next_word(tokenizer, ids[:-1], ids[0]) == "a"


@pytest.mark.parametrize("text", SCRIPTS)
def test_the_whole_character_is_shown_of_a_token_that_is_a_part_of_one(text, tokenizer):
  ids, data = np.array(encode(tokenizer, text)), text.encode()
  for at in range(len(ids)):
    before, token, after = text_lib.in_context(tokenizer, ids, at, len(ids), len(ids))
    assert before + token + after == text
    assert len(token) == 1 and len(before.encode()) <= at < len((before + token).encode())
  assert len(ids) == len(data)

  # Windows that begin and end inside a character.
  for at in range(4, len(ids) - 4):
    assert "\ufffd" not in "".join(text_lib.in_context(tokenizer, ids, at, 3, 2))


def test_parquet_columns_of_another_type_are_named_as_such(tmp_path):
  columns = {"text": pa.array([b"a"]), "id": pa.array([[1]]), "messages": pa.array(["a"])}
  for name, column in columns.items():
    path = tmp_path / f"{name}.parquet"
    pq.write_table(pa.table({"text": pa.array(["a"]), name: column}), path)
    with pytest.raises(NLAError, match=f"column '{name}' of type .*; expected"):
      list(read_corpus(str(path)))


def of_merges():
  """A token may be several words, as there is nothing that cuts a text before its pairs are merged."""
  backend = Tokenizer(models.BPE(byte_fallback=True))
  backend.decoder = decoders.Fuse()
  text = ["the river runs past the old mills and a aa aaa\n\n\t" * 20]
  named = [f"<0x{i:02X}>" for i in range(256)] + ["<|im_start|>", "<|im_end|>"]
  backend.train_from_iterator(text, trainers.BpeTrainer(vocab_size=500, special_tokens=named))
  return PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token="<|im_end|>", chat_template=CHAT
  )


@pytest.mark.parametrize(
  "text",
  [
    "a" * 40_000,
    "👩‍👩‍👧‍👦🏳️‍🌈e\u0301" * 3_000,
    "the river  runs\n\n\tpast 12,345 mills " * 1_200,
    "<|im_end|>" * 4_000,
    " " * 40_000,
    "short",
  ],
)
@pytest.mark.parametrize("tokenizer_of", [of_bytes, with_blank_first, of_merges])
def test_the_first_tokens_of_an_endless_text_cost_no_more_than_they_hold(
  tokenizer_of, text, monkeypatch
):
  tokenizer = tokenizer_of()
  messages = [{"role": "user", "content": text}]
  whole, rendered = encode(tokenizer, text, special=True), render(tokenizer, messages)

  characters, tokenise = [], type(tokenizer).__call__

  def counted(self, one, **options):
    characters.append(len(one))
    return tokenise(self, one, **options)

  monkeypatch.setattr(type(tokenizer), "__call__", counted)
  assert encode(tokenizer, text, special=True, at_most=96) == whole[:96]
  assert sum(characters) < 12_000
  characters.clear()
  assert render(tokenizer, messages, at_most=96) == rendered[:96]
  assert sum(characters) < 12_000
