"""The readout teacher states only what can be verified."""

import pytest
from ml_collections import ConfigDict

from nla_jax.autoencoder.prompts import encode
from nla_jax.data.teachers.readout import TopicWords, last_words, readout
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
