"""Conversations of two become documents, and no person is in two groups."""

import collections
import importlib.util
import itertools
import json
import random
import sys

import pytest

from nla_jax.data.corpora import chitchat
from nla_jax.data.corpora.document import Document
from nla_jax.data.corpora.read import read_blocks, read_corpus
from nla_jax.errors import NLAError

installed = pytest.mark.skipif(
  importlib.util.find_spec("chitchat_dataset") is None,
  reason="needs chitchat-dataset, which launch/demo-data.txt names",
)
LONG = "words that are many enough to be a turn of a conversation between two"


def _write(path, conversations: dict[str, list[tuple[str, str]]]):
  """A file of conversations, given as (who, what) of each message."""
  path.write_text(
    json.dumps(
      {
        name: {"messages": [[{"sender": who, "text": text}] for who, text in messages]}
        for name, messages in conversations.items()
      }
    )
  )
  return str(path)


def _documents(path: str, **options) -> list[Document]:
  records = chitchat.read_conversations(path, **options)
  return list(itertools.chain.from_iterable(records.documents(*one) for one in records.records))


def test_who_speaks_first_is_the_user_and_messages_in_a_row_are_one(tmp_path):
  said = [("b", "  "), ("b", "Hi"), ("b", LONG), ("a", LONG), ("b", LONG), ("a", ""), ("a", "Bye")]
  (document,) = _documents(_write(tmp_path / "x.json", {"talk": said}))
  assert document.id == "talk#0" and document.text == ""
  assert document.messages == (
    {"role": "user", "content": f"Hi\n{LONG}"},
    {"role": "assistant", "content": LONG},
    {"role": "user", "content": LONG},
    {"role": "assistant", "content": "Bye"},
  )


def test_what_is_no_conversation_is_left_out(tmp_path):
  path = _write(
    tmp_path / "x.json",
    {
      "good": [("a", LONG), ("b", LONG)] * 2,
      "empty": [],
      "alone": [("a", LONG)] * 9,
      "three people": [("a", LONG), ("b", LONG), ("c", LONG), ("a", LONG)],
      "three turns": [("a", LONG), ("b", LONG * 9), ("a", LONG)],
      "few words": [("a", "Hi"), ("b", "Hi")] * 4,
    },
  )
  assert [document.id for document in _documents(path)] == ["good#0"]


def test_a_long_conversation_is_cut_between_turns_and_no_turn_stands_alone(tmp_path):
  words = "word " * 60  # 299 characters: two turns are a piece
  said = [("a", f"{words}{i}") if i % 2 else ("b", f"{words}{i}") for i in range(5)]
  documents = _documents(_write(tmp_path / "x.json", {"talk": said}))
  assert [document.id for document in documents] == ["talk#0", "talk#1"]
  assert len({document.group for document in documents}) == 1
  turns = [one["content"] for document in documents for one in document.messages]
  assert turns == [text for _, text in said] and [len(d.messages) for d in documents] == [2, 3]


def test_no_person_is_in_two_groups_and_no_group_is_too_large(tmp_path):
  # Everyone is linked with everyone over some others, as in the sample.
  generator = random.Random(0)
  pairs = [
    (f"p{k % 2}", f"p{generator.randrange(2, 80)}")
    if k % 3
    else tuple(f"p{i}" for i in generator.sample(range(80), 2))
    for k in range(400)
  ]
  talks = {f"t{i}": [(one, LONG), (other, LONG)] * 2 for i, (one, other) in enumerate(pairs)}
  documents = _documents(_write(tmp_path / "x.json", talks), most=25)

  sizes = collections.Counter(document.group for document in documents)
  assert max(sizes.values()) <= 25 and len(sizes) >= 4
  groups = collections.defaultdict(set)
  for document in documents:
    for who in dict(talks[document.id.partition("#")[0]]):
      groups[who].add(document.group)
  assert all(len(found) == 1 for found in groups.values())


def test_separate_circles_lose_no_conversation():
  pairs = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "b"), ("x", "y"), ("y", "z")]
  circle = chitchat.find_circles(pairs, most=10)
  assert len({circle[who] for who in "abcd"}) == 1 and len({circle[who] for who in "xyz"}) == 1
  assert circle["a"] != circle["x"]

  # Where there is room for less, the pair of most conversations stays together.
  circle = chitchat.find_circles(pairs, most=2)
  assert circle["a"] == circle["b"] != circle["c"]


@pytest.mark.parametrize(
  "content", ["[]", "{", '{"a": 1}', '{"a": {"messages": [[{"text": "x"}]]}}']
)
def test_a_damaged_file_is_told_in_one_line(tmp_path, content):
  (tmp_path / "x.json").write_text(content)
  with pytest.raises(NLAError, match=r"does not hold conversations.*install") as caught:
    chitchat.read_conversations(str(tmp_path / "x.json"))
  assert "\n" not in str(caught.value)


@installed
def test_the_sample_is_the_one_that_its_description_counts():
  documents = list(read_corpus("chitchat-sample"))
  assert "chitchat_dataset" not in sys.modules
  sizes = collections.Counter(document.group for document in documents)
  assert (len(documents), len(sizes), max(sizes.values())) == (7921, 137, 710)
  assert len({document.id.partition("#")[0] for document in documents}) == 1398
  for document in documents:
    roles = [one["role"] for one in document.messages]
    assert roles == (["user", "assistant"] * len(roles))[: len(roles)] and len(roles) >= 2

  with open(chitchat.sample_path(), encoding="utf-8") as file:
    given = json.load(file)
  groups = collections.defaultdict(set)
  for document in documents:
    for message in itertools.chain(*given[document.id.partition("#")[0]]["messages"]):
      groups[message["sender"]].add(document.group)
  assert all(len(found) == 1 for found in groups.values())

  blocks = read_blocks("chitchat-sample", 100)
  assert [one for _, records in blocks for parse in records for one in parse()] == documents
