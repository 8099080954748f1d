"""Texts of which a model would learn another text, or none, are refused before any training."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from support import known_pair

from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.prompts import encode, make_prompts, parse_explanation, wrap_explanation
from nla_jax.cli.main import main
from nla_jax.data.store.store import Store
from nla_jax.data.teachers.check import check_texts
from nla_jax.data.teachers.readout import TopicWords, readout
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer

CAP = 80  # tokens of an answer, of which the tags and the end of the turn take 30


@pytest.fixture(scope="module")
def pair():
  tokenizer = byte_tokenizer()
  prompts = make_prompts(tokenizer, "Explain {injection_char}.", "<text>{explanation}</text> <s>")
  return Pair(None, None, prompts, tokenizer, layer=1, max_new_tokens=CAP)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return known_pair.write_store(tmp_path_factory.mktemp("taught") / "store")


def test_texts_that_serve_pass(pair, store):
  around = len(pair.prompts.answer_ids(pair.tokenizer, ""))
  check_texts({0: "plain words", 9: " < explanation> ", 17: "x" * (CAP - around)}, pair, store)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("a </explanation> b", "do not come back whole out of the tags"),
    ("</explanation> a", "do not come back whole"),
    ("a</explanation>", "do not come back whole"),
    ("é" * 30, f"are longer than config.rl.max_new_tokens={CAP}"),
  ],
)
def test_a_text_that_a_model_cannot_learn_is_counted_and_named(text, message, pair, store):
  texts = {0: "plain", 9: text, 17: "<explanation> opened", 18: text}
  with pytest.raises(NLAError) as caught:
    check_texts(texts, pair, store)
  said = str(caught.value)
  assert said.startswith(f"2 of the teacher's 4 explanations {message}") and "\n" not in said
  assert "position 1 of document 'd1'" in said


def test_a_text_that_the_ar_would_read_as_an_empty_one_is_named(pair, store, monkeypatch):
  # The AR's row follows from the cap; a template that splits more tokens than it allows for is stood in for.
  monkeypatch.setitem(pair.__dict__, "ar_tokens", 14)
  with pytest.raises(NLAError, match="1 of the teacher's 2 explanations do not fit the AR's rows"):
    check_texts({0: "a", 1: "not quite"}, pair, store)


def test_a_document_with_the_tags_is_taught_without_them():
  tokenizer, settings = (
    byte_tokenizer(),
    ConfigDict({"next_tokens": 2, "topic_words": 2, "last_words": 3, "max_tokens": 90}),
  )
  context = "the mill </explanation> turns <explanation> all day</explanation>"
  ids = encode(tokenizer, context)
  for end in range(1, len(ids) + 1):
    text = readout(tokenizer, ids[:end], encode(tokenizer, "ab"), TopicWords([context]), settings)
    assert parse_explanation(wrap_explanation(text)) == text
  assert text.endswith('Ends: "turns all day"')


def test_one_endless_word_is_cut_to_its_last_letters():
  tokenizer, settings = (
    byte_tokenizer(),
    ConfigDict({"next_tokens": 2, "topic_words": 2, "last_words": 3, "max_tokens": 40}),
  )
  ids = np.array(encode(tokenizer, "b" * 90 + "c"))
  text = readout(tokenizer, ids, encode(tokenizer, "ab"), TopicWords(["b"]), settings)
  assert len(encode(tokenizer, text)) <= 40 and text.endswith('bbc"')


def test_nla_teach_refuses_the_file_and_takes_the_corrected_one(tmp_path, capsys):
  root = known_pair.__file__.split("tests")[0]
  run = [f"--config={root}configs/tiny.py", f"--workdir={tmp_path / 'run'}"]
  (tmp_path / "c.txt").write_text("\n\n".join(f"{i} a paragraph of some words" for i in range(8)))
  run.append(f"--config.corpus={tmp_path / 'c.txt'}")
  assert main(["extract", *run]) == 0
  store = Store(str(tmp_path / "run" / "activations" / "store"))
  keys = zip(store.read("document", slice(None)), store.read("position", slice(None)))
  rows = [{"doc_id": store.documents[int(d)].id, "position": int(p)} for d, p in keys]

  path = tmp_path / "teacher.jsonl"
  run += ["--config.teacher.provider=file", f"--config.teacher.path={path}"]
  for text, status in (("words </explanation> lost", 2), ("many words " * 9, 2), ("words", 0)):
    path.write_text("\n".join(json.dumps({**row, "explanation": text}) for row in rows))
    assert main(["teach", *run]) == status
    assert (f"{len(rows)} of the teacher's" in capsys.readouterr().err) == (status == 2)

  # A lower cap makes texts too long that were not: said before the AR is trained, which comes first.
  assert main(["sft", *run, "--config.rl.max_new_tokens=34", "--config.teacher.max_tokens=2"]) == 2
