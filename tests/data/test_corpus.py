"""Documents come out in order, whole, and bad input is told in one line."""

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nla_jax.data.corpora import wikipedia as wikipedia_dump
from nla_jax.data.corpora.document import Document
from nla_jax.data.corpora.read import read_blocks, read_corpus, source_names
from nla_jax.errors import NLAError

demo = pytest.mark.skipif(
  any(importlib.util.find_spec(name) is None for name in ("gensim", "mwparserfromhell")),
  reason="needs the extra `demo` (gensim's Wikipedia sample, mwparserfromhell)",
)


@pytest.fixture(scope="module")
def wikipedia() -> list[Document]:
  return list(read_corpus("wikipedia-sample"))


@demo
def test_the_sample_holds_thousands_of_paragraphs_of_prose(wikipedia):
  assert len(wikipedia) > 3000
  assert len({document.group for document in wikipedia}) > 80
  assert len({document.id for document in wikipedia}) == len(wikipedia)
  for document in wikipedia:
    assert document.id.rpartition("#")[0] == document.group
    assert len(document.text) >= 200 and "\n" not in document.text
    assert document.text.rstrip("\"'”’)]")[-1] in ".!?"


@demo
def test_no_markup_is_left_in_the_sample(wikipedia):
  for mark in (
    "{{",
    "}}",
    "[[",
    "]]",
    "<ref",
    "</",
    "'''",
    "==",
    "\x00",
    "|-",
    "()",
    "( ",
    "&nbsp;",
    "thumb|",
  ):
    assert [document.id for document in wikipedia if mark in document.text] == []


@demo
def test_the_sample_is_the_same_every_time(wikipedia):
  digest = lambda documents: hashlib.sha256(
    "\x01".join(d.id + d.text for d in documents).encode()
  ).hexdigest()
  first = list(itertools.islice(read_corpus("wikipedia-sample"), 500))
  assert digest(first) == digest(wikipedia[:500])
  assert list(read_corpus("wikipedia-sample", max_documents=7)) == wikipedia[:7]


@demo
def test_gensim_is_not_imported(wikipedia):
  assert "gensim" not in sys.modules


@demo
def test_only_the_words_of_sentences_are_kept():
  words = (
    "The quick brown fox jumps over the lazy dog near the quiet river while the farmer watches from afar. "
    * 3
  )
  wikitext = (
    "{{Infobox|name=secret}}\n[[File:a.png|thumb|A [[caption]] that is dropped]]\n"
    f"'''Fox''' ({{{{IPA|x}}}}; {{{{lang|la|Vulpes}}}}) is [[animal|a beast]].<ref>No</ref> {words}\n\n"
    f"== Heading ==\n* {words}\n# {words}\n{{|\n| {words}\n|}}\n"
    f"It weighs {{{{convert|5|kg}}}}&nbsp;or more. {words}\n"
    "[[Category:Foxes]]\n\nToo short.\n"
  )
  first, second = wikipedia_dump.paragraphs(wikitext)
  assert first == f"Fox (Vulpes) is a beast. {words.strip()}"
  assert second == f"It weighs 5 kg or more. {words.strip()}"


def test_a_missing_package_says_what_to_install(monkeypatch):
  real = importlib.util.find_spec
  for name, corpus, advice in (
    ("gensim", "wikipedia-sample", "pip install --no-deps gensim"),
    ("mwparserfromhell", "wikipedia-sample", "extra `demo`"),
    ("chitchat_dataset", "chitchat-sample", "pip install --no-deps chitchat-dataset"),
  ):
    monkeypatch.setattr(
      importlib.util, "find_spec", lambda asked, name=name: None if asked == name else real(asked)
    )
    if real("mwparserfromhell") is None and name == "gensim":
      continue
    with pytest.raises(NLAError, match=advice):
      read_corpus(corpus)


def test_a_missing_datasets_package_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(NLAError, match="pip install datasets"):
    read_corpus("hf://some/name")


def test_a_hub_source_reads_a_local_folder_through_datasets(tmp_path):
  pytest.importorskip("datasets")
  (tmp_path / "train.jsonl").write_text(
    '{"text": "one", "group": "g"}\n{"text": "two", "group": "g"}\n'
  )
  documents = list(read_corpus(f"hf://{tmp_path}:train"))
  assert [(d.text, d.group) for d in documents] == [("one", "g"), ("two", "g")]
  assert len({d.id for d in documents}) == 2
  with pytest.raises(NLAError, match="cannot be opened"):
    read_corpus(f"hf://{tmp_path}:nonsense")


@pytest.mark.parametrize("error", [ConnectionError("gone\nfor good"), ValueError("")])
@pytest.mark.parametrize("rows", [None, 0, 2])
def test_whatever_a_hub_raises_is_one_line(rows, error, monkeypatch):
  def load_dataset(name, subset, split, streaming):
    if rows is None:
      raise error
    return Stream()

  class Stream:
    column_names = ("text",)

    def __iter__(self):
      yield from [{"text": f"text {i}"} for i in range(rows)]
      raise error

  found = types.SimpleNamespace(load_dataset=load_dataset, __spec__=True)
  monkeypatch.setitem(sys.modules, "datasets", found)
  place = "cannot be opened" if rows is None else f"cannot be read behind row {rows - 1}"
  with pytest.raises(NLAError, match=f"hf://a/b {place}: {type(error).__name__}") as caught:
    list(read_corpus("hf://a/b"))
  assert "\n" not in str(caught.value)


def test_a_text_file_gives_a_document_for_each_paragraph(tmp_path):
  path = tmp_path / "book.txt"
  path.write_text("One\ntwo.\n\n \nThree.\n\n\nFour", encoding="utf-8")
  assert list(read_corpus(str(path))) == [
    Document("book#0", "One\ntwo.", "book#0"),
    Document("book#1", "Three.", "book#1"),
    Document("book#2", "Four", "book#2"),
  ]


def test_ids_and_groups_are_optional(tmp_path):
  rows = [{"text": "a", "id": 7, "group": "g"}, {"text": "b"}, {"text": "c", "group": "g"}]
  lines, table = tmp_path / "x.jsonl", tmp_path / "x.parquet"
  lines.write_text("\n".join(map(json.dumps, rows)))
  pq.write_table(
    pa.Table.from_pylist(
      [
        {"text": r["text"], "id": str(r["id"]) if "id" in r else None, "group": r.get("group")}
        for r in rows
      ]
    ),
    table,
  )
  assert list(read_corpus(str(lines))) == [
    Document("7", "a", "g"),
    Document("x#2", "b", "x#2"),
    Document("x#3", "c", "g"),
  ]
  assert list(read_corpus(str(table))) == [
    Document("7", "a", "g"),
    Document("x#1", "b", "x#1"),
    Document("x#2", "c", "g"),
  ]


def test_messages_are_a_document_as_a_text_is(tmp_path):
  talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
  rows = [{"messages": talk, "id": "t", "group": "g"}, {"text": "c"}, {"messages": talk[:1]}]
  expected = [
    Document("t", "", "g", tuple(talk)),
    Document("x#{}", "c", "x#{}"),
    Document("x#{}", "", "x#{}", tuple(talk[:1])),
  ]
  # What else a message says is left out.
  extra = [{"text": None, "messages": None, **row} for row in rows]
  extra[0]["messages"] = [{**one, "language": "n"} for one in talk]
  (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, extra)))
  pq.write_table(pa.Table.from_pylist(extra), tmp_path / "x.parquet")

  for kind, first in (("jsonl", 1), ("parquet", 0)):
    numbered = [
      dataclasses.replace(one, id=one.id.format(i), group=one.group.format(i))
      for i, one in enumerate(expected, first)
    ]
    assert list(read_corpus(str(tmp_path / f"x.{kind}"))) == numbered


def test_several_corpora_are_one_after_the_other_under_their_names(tmp_path):
  for name in ("a", "b"):
    lines = [{"text": f"{name} {i}", "id": i, "group": "g"} for i in range(3)]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
  (tmp_path / "c.txt").write_text("c 0\n\nc 1")
  source = "+".join(str(tmp_path / name) for name in ("b.jsonl", "c.txt", "a.jsonl"))

  assert source_names(source) == ["b", "c", "a"]
  documents = list(read_corpus(source))
  assert documents == [
    *[Document(f"b:{i}", f"b {i}", "b:g", source="b") for i in range(3)],
    *[Document(f"c:c#{i}", f"c {i}", f"c:c#{i}", source="c") for i in range(2)],
    *[Document(f"a:{i}", f"a {i}", "a:g", source="a") for i in range(3)],
  ]
  assert _joined(source, 2) == _joined(source, 3) == documents


def test_a_path_with_a_plus_is_one_corpus(tmp_path):
  path = tmp_path / "one+two.txt"
  path.write_text("text")
  assert source_names(str(path)) == [""]
  assert list(read_corpus(str(path))) == [Document("one+two#0", "text", "one+two#0")]


def test_parts_that_cannot_be_read_together_are_told_at_once(tmp_path):
  (tmp_path / "more").mkdir()
  here, there = tmp_path / "a.txt", tmp_path / "more" / "a.txt"
  for path in (here, there):
    path.write_text("text")
  for source, message in (
    (f"{here}+{there}", "2 parts called 'a'"),
    (f"{here}+{here}", "2 parts called 'a'"),
    (f"{here}+", "an empty part"),
    (f"{here}+{tmp_path / 'b.txt'}", "b.txt does not exist"),
    (f"{here}+notes", "'notes' is no known kind"),
  ):
    with pytest.raises(NLAError, match=message) as caught:
      read_corpus(source)
    assert "\n" not in str(caught.value)


def _joined(source: str, size: int) -> list[Document]:
  """The documents of all blocks, of which every other one is parsed in a second reading."""
  parts = {}
  for reading in range(2):
    for block, records in read_blocks(source, size):
      if block % 2 == reading:
        parts[block] = [document for parse in records for document in parse()]
  assert all(parts.values()) and sorted(parts) == list(range(len(parts))) and len(parts) > 1
  return [document for block in sorted(parts) for document in parts[block]]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_blocks_of_a_corpus_are_the_corpus(tmp_path, kind, size):
  path, texts = tmp_path / f"x.{kind}", [f"text {i}" for i in range(5)]
  if kind == "parquet":
    pq.write_table(pa.table({"text": texts}), path)
  else:
    path.write_text(
      "\n\n".join(texts if kind == "txt" else [json.dumps({"text": text}) for text in texts])
    )
  joined = _joined(str(path), size)
  assert joined == list(read_corpus(str(path))) and [document.text for document in joined] == texts


@demo
def test_the_blocks_of_the_sample_are_the_sample(wikipedia):
  assert _joined("wikipedia-sample", 20) == wikipedia


def test_records_that_are_not_taken_are_not_parsed(tmp_path):
  (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{oops\n{"text": "b"}\n')
  found = [next(records)() for _, records in read_blocks(str(tmp_path / "x.jsonl"), 2)]
  assert [one.text for documents in found for one in documents] == ["a", "b"]


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("x.jsonl", b'{"text": "a"}\n{"text": oops}\n', "line 2 is not JSON"),
    ("x.jsonl", b'{"text": "a"}\n[1]\n', "line 2 is a JSON list"),
    ("x.jsonl", b'{"text": "a"}\n\n{"words": "b"}\n', "line 3 has nothing as 'text'"),
    ("x.jsonl", b'{"text": 3}\n', "line 1 has int as 'text'"),
    (
      "x.jsonl",
      b'{"text": "a"}\n{"messages": []}\n',
      "line 2 has under 'messages' an empty list: expected a list of messages",
    ),
    (
      "x.jsonl",
      b'{"messages": "hello"}\n',
      "line 1 has under 'messages' a str: expected a list of messages",
    ),
    (
      "x.jsonl",
      b'{"messages": ["hello"]}\n',
      "message 1 of .* line 1 is a str: expected an object",
    ),
    (
      "x.jsonl",
      b'{"messages": [{"role": "user", "content": "a"}, {"role": "user"}]}\n',
      "message 2 of .* line 1 has no content",
    ),
    (
      "x.jsonl",
      b'{"messages": [{"role": "bot", "content": "a"}]}\n',
      "the role 'bot'; a role is one of system, developer, user, assistant, tool",
    ),
    ("x.jsonl", b'{"text": "a", "id": 1}\n{"text": "b", "id": "1"}\n', "the document id '1' twice"),
    ("x.jsonl", b"\n", "holds no document"),
    ("x.txt", b"\n \n", "holds no document"),
    ("x.txt", b"caf\xe9\n", "not UTF-8"),
    ("x.parquet", b"PAR0 no parquet", "cannot be read as parquet"),
    ("x.csv", b"text\na\n", "no known kind"),
  ],
)
def test_bad_files_are_named_with_the_place(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(NLAError, match=message) as caught:
    list(read_corpus(str(path)))
  assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_column_is_told_with_the_columns_there_are(tmp_path):
  pq.write_table(pa.table({"words": ["a"]}), tmp_path / "x.parquet")
  with pytest.raises(
    NLAError, match=r"no column 'text' or 'messages' or .*; its columns are words"
  ):
    list(read_corpus(str(tmp_path / "x.parquet")))


def test_a_missing_file_fails_before_the_first_document(tmp_path):
  with pytest.raises(NLAError, match="does not exist"):
    read_corpus(str(tmp_path / "none.jsonl"))


def test_a_dump_cut_off_in_the_middle_is_told(tmp_path):
  path = tmp_path / "dump.bz2"
  path.write_bytes(b"BZh91AY&SY cut off")
  with pytest.raises(NLAError, match="not a readable bz2"):
    list(wikipedia_dump.read_pages(str(path)))


_SHAPES = {
  "openai": {
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
  },
  "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
  "wildchat": {
    "conversation_hash": "c7",
    "hashed_ip": "user 3",
    "toxic": False,
    "conversation": [
      {"role": "user", "content": "hi", "toxic": False, "turn_identifier": 1},
      {"role": "assistant", "content": "ho", "toxic": False, "turn_identifier": 1},
    ],
  },
  "lmsys": {
    "conversation_id": "c7",
    "openai_moderation": [{"flagged": False}],
    "conversation": [{"content": "hi", "role": "user"}, {"content": "ho", "role": "assistant"}],
  },
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_a_conversation_of_any_shape_in_any_file_is_the_same_document(tmp_path, shape, kind):
  path, row = tmp_path / f"talks.{kind}", _SHAPES[shape]
  if kind == "jsonl":
    path.write_text(json.dumps(row))
  else:
    pq.write_table(pa.Table.from_pylist([row]), path)
  (one,) = read_corpus(str(path))
  said = [(message["role"], message["content"]) for message in one.messages]
  assert said == [("user", "hi"), ("assistant", "ho")] and one.text == ""
  if shape in ("wildchat", "lmsys"):
    assert (one.id, one.group) == ("c7", "c7")
  assert one.user == ("user 3" if shape == "wildchat" else "")


def test_a_group_of_its_own_goes_before_the_user(tmp_path):
  row = _SHAPES["wildchat"] | {"group": "g"}
  (tmp_path / "a.jsonl").write_text(json.dumps(row))
  (tmp_path / "b.jsonl").write_text(json.dumps(_SHAPES["wildchat"]))
  mine, theirs = read_corpus(f"{tmp_path / 'a.jsonl'}+{tmp_path / 'b.jsonl'}")
  assert (mine.group, mine.user, theirs.group, theirs.user) == ("a:g", "", "b:c7", "b:user 3")
