"""The readout teacher states only what can be verified; every row of a store gets its own text."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from nla_jax.autoencoder.text import encode
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.data.teachers.readout import TopicWords, last_words, readout
from nla_jax.data.teachers.write import teach
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer

SETTINGS = ConfigDict({"next_tokens": 3, "topic_words": 2, "last_words": 2, "max_tokens": 200})


@pytest.fixture(scope="module")
def tokenizer():
  return byte_tokenizer()


@pytest.fixture(scope="module")
def topics():
  common = ["the planet and the river were large"] * 3
  return TopicWords(
    [*common, "planet river unheard", "nothing else", "another page", "a sixth page"]
  )


def test_every_statement_is_found_in_the_context_or_the_predictions(tokenizer, topics):
  context = "the river and the planet: river water runs"
  text = readout(tokenizer, encode(tokenizer, context), encode(tokenizer, "ab"), topics, SETTINGS)
  features = text.split("\n\n")
  assert features[0] == "Next: a, b"
  assert features[1].startswith("About: ") and all(
    word in context for word in features[1][7:].split(", ")
  )
  assert features[2] == 'Ends: "water runs"'


def test_words_that_several_groups_use_come_before_names_seen_once(topics):
  assert topics.rank("unheard unheard unheard river planet planet")[:2] == ["planet", "river"]


def test_an_explanation_stays_within_its_tokens_by_leaving_features_out(tokenizer, topics):
  tight = ConfigDict({**SETTINGS.to_dict(), "max_tokens": 30})
  text = readout(
    tokenizer,
    encode(tokenizer, "the planet has a river with a very long name"),
    [97],
    topics,
    tight,
  )
  assert len(encode(tokenizer, text)) <= 30 and text.endswith('name"')


def test_last_words_are_the_last_words():
  assert last_words("a\nb  c d", 3) == "b c d"


TEXTS = {"river#0": "the planet has a river", "river#1": "and a moon", "sea#0": "a sea of salt"}


@pytest.fixture
def store(tokenizer, tmp_path) -> Store:
  """Two rows of each document, in an order that is not that of the documents."""
  documents = [
    StoredDocument(name, name[:-2], "rl", np.array(encode(tokenizer, text), np.int32))
    for name, text in TEXTS.items()
  ]
  columns = {
    "activations": np.zeros((6, 4), np.float32),
    "document": np.array([2, 0, 1, 1, 0, 2], np.int32),
    "position": np.array([4, 9, 2, 9, 3, 7], np.int32),
    "next_tokens": np.array([encode(tokenizer, c * 2) for c in "uvwxyz"], np.int32),
  }
  arrays = {name: (value.shape[1:], value.dtype.name) for name, value in columns.items()}
  writer = StoreWriter(str(tmp_path / "store"), arrays, 6, 6, 6)
  writer.write_shard(0, columns)
  writer.write_documents(documents)
  writer.finish()
  return Store(str(tmp_path / "store"))


def test_each_row_is_told_its_own_context_and_predictions(store, tokenizer):
  settings = ConfigDict({**SETTINGS.to_dict(), "provider": "readout"})
  texts = list(teach(store, tokenizer, settings).values())
  assert [text.split("\n\n")[0] for text in texts] == [f"Next: {c}" for c in "uvwxyz"]
  assert [text.split("\n\n")[-1] for text in texts] == [
    'Ends: "a sea"',
    'Ends: "the planet"',
    'Ends: "and"',
    'Ends: "a moon"',
    'Ends: "the"',
    'Ends: "sea of"',
  ]


def test_a_teachers_file_is_matched_by_document_and_position(store, tokenizer, tmp_path):
  places = [
    ("river#0", 3),
    ("river#0", 9),
    ("river#1", 2),
    ("river#1", 9),
    ("sea#0", 4),
    ("sea#0", 7),
  ]
  lines = [
    json.dumps({"doc_id": name, "position": position, "explanation": f"{name} at {position}"})
    for name, position in places
  ]
  path = tmp_path / "teacher.jsonl"
  path.write_text("\n".join(lines))
  settings = ConfigDict({"provider": "file", "path": str(path)})
  assert list(teach(store, tokenizer, settings).values()) == [
    "sea#0 at 4",
    "river#0 at 9",
    "river#1 at 2",
    "river#1 at 9",
    "river#0 at 3",
    "sea#0 at 7",
  ]
  path.write_text("\n".join(lines[1:]))
  with pytest.raises(NLAError, match="position 3 of document 'river#0'"):
    teach(store, tokenizer, settings)
