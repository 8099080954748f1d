"""What of a corpus is extracted: conversations, several corpora, and the same with several processes."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.threads_as_processes import in_processes

from nla_jax.autoencoder.chat import render
from nla_jax.config import default_config
from nla_jax.data.corpora.mixture import draw, read_weights
from nla_jax.data.left_out import notes, part_notes
from nla_jax.data.selection import select
from nla_jax.data.store.documents import documents_to_parquet
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.run.checks import check_names


@pytest.fixture(scope="module")
def tokenizer():
  return byte_tokenizer()


def _config(corpus, **data):
  config = default_config()
  config.corpus = str(corpus)
  config.data.update({"position_minimum": 8, "positions_per_document": 4, **data})
  return config


def _talk(i: int, turns: int = 4) -> list[dict[str, str]]:
  roles = ("user", "assistant")
  return [{"role": roles[k % 2], "content": f"turn {k} of talk {i}"} for k in range(turns)]


@pytest.fixture
def mixed(tmp_path):
  """A corpus of two: 30 texts and 12 conversations, whose files both number their documents from 0."""
  texts, talks = tmp_path / "texts.jsonl", tmp_path / "talks.parquet"
  texts.write_text(
    "\n".join(json.dumps({"text": f"The text {i} says something.", "id": i}) for i in range(30))
  )
  rows = [{"messages": _talk(i), "id": str(i), "group": str(i // 2)} for i in range(12)]
  pq.write_table(pa.Table.from_pylist(rows), talks)
  return f"{texts}+{talks}"


def test_a_conversation_is_tokenised_with_the_chat_template(mixed, tokenizer, tmp_path):
  selection = select(_config(mixed), tokenizer, str(tmp_path / "tokens"))
  talks = [one for one in selection.documents if one.source == "talks"]
  assert len(talks) == 12 and len(selection.documents) == 42
  for i, one in enumerate(talks):
    assert (one.id, one.group) == (f"talks:{i}", f"talks:{i // 2}")
    assert one.tokens.tolist() == render(tokenizer, _talk(i))[:128]

  # Neither token that the template puts around a turn is ever taken.
  turn = {tokenizer.convert_tokens_to_ids(text) for text in ("<|im_start|>", "<|im_end|>")}
  every = _config(mixed, positions_per_document=1000)
  selection = select(every, tokenizer, str(tmp_path / "tokens"))
  chosen = {
    int(selection.documents[i].tokens[p])
    for i, p in zip(selection.document, selection.position, strict=True)
  }
  assert turn <= set(talks[0].tokens.tolist()) and not turn & chosen


def test_one_corpus_alone_has_ids_without_a_prefix(mixed, tokenizer, tmp_path):
  alone = select(_config(mixed.split("+")[0]), tokenizer, str(tmp_path / "tokens"))
  assert [one.id for one in alone.documents] == [str(i) for i in range(30)]
  assert {one.source for one in alone.documents} == {""}


@pytest.mark.parametrize(
  "options", [{}, {"max_documents": 17}, {"max_documents": 15, "weights": "texts=0.2,talks=0.8"}]
)
def test_several_processes_select_what_one_does(mixed, tokenizer, tmp_path, monkeypatch, options):
  config, folder = _config(mixed, **options), str(tmp_path / "tokens")
  alone = select(config, tokenizer, folder)
  # A tokenizer each: one call's choice to split special tokens would otherwise reach another thread's call.
  for found in in_processes(3, monkeypatch, lambda: select(config, byte_tokenizer(), folder)):
    for expected, one in zip(alone.documents, found.documents, strict=True):
      assert one.tokens.tolist() == expected.tokens.tolist()
      for field in ("id", "group", "split", "source"):
        assert getattr(one, field) == getattr(expected, field)
    np.testing.assert_array_equal(found.document, alone.document)
    np.testing.assert_array_equal(found.position, alone.position)
    assert (found.parts, found.counts) == (alone.parts, alone.counts)


def test_a_mistake_in_one_process_is_told_in_all(tokenizer, tmp_path, monkeypatch):
  rows = [{"text": "A text that is long enough."}] * 5 + [{"messages": _talk(0)}]
  (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
  config, folder = _config(tmp_path / "x.jsonl"), str(tmp_path / "tokens")

  def run():
    dumb = byte_tokenizer()
    dumb.chat_template = None
    return select(config, dumb, folder)

  found = in_processes(3, monkeypatch, run)
  assert "no chat template" in str(found[2]) and "process 2 could not" in str(found[0])


@pytest.mark.parametrize(
  ("counts", "wanted", "shares"),
  [
    ([100], 10, [10]),
    ([100, 50], 0, [100, 50]),
    ([100, 50], 150, [100, 50]),
    ([100, 50], 20, [10, 10]),
    ([1000, 4], 100, [96, 4]),
    ([4, 1000, 30], 101, [4, 67, 30]),
  ],
)
def test_each_source_gives_as_many_as_the_others_where_it_can(counts, wanted, shares):
  drawn, ends = sorted(draw(counts, wanted, 42)), np.cumsum(counts)
  found = np.diff(np.searchsorted(drawn, [0, *ends]))
  assert found.tolist() == shares and len(set(drawn)) == len(drawn)


def test_a_model_without_a_chat_template_is_told_the_corpus(mixed, tmp_path):
  dumb = byte_tokenizer()
  dumb.chat_template = None
  with pytest.raises(NLAError, match=r"talks.*no chat template.*instruction-tuned") as caught:
    select(_config(mixed), dumb, str(tmp_path / "tokens"))
  assert "\n" not in str(caught.value) and mixed in str(caught.value)


def test_a_template_that_refuses_a_conversation_is_quoted(mixed, tmp_path):
  strict = byte_tokenizer()
  strict.chat_template = "{{ raise_exception('roles must alternate') }}"
  with pytest.raises(NLAError, match=r"refuses the conversation 'talks:0'.*roles must alternate"):
    select(_config(mixed), strict, str(tmp_path / "tokens"))


def test_a_source_without_a_long_document_is_named(mixed, tokenizer, tmp_path):
  with pytest.raises(NLAError, match="none of the documents drawn of texts has more than 60"):
    select(_config(mixed, position_minimum=60), tokenizer, str(tmp_path / "tokens"))


def test_an_empty_source_is_named(mixed, tokenizer, tmp_path):
  (tmp_path / "none.txt").write_text("\n")
  with pytest.raises(NLAError, match="the corpus none holds no document"):
    select(_config(f"{mixed}+{tmp_path / 'none.txt'}"), tokenizer, str(tmp_path / "tokens"))


def test_the_rows_of_a_corpus_of_texts_are_what_they_were(tmp_path):
  # Written down with the program as it was before there were conversations and sources.
  (tmp_path / "book.txt").write_text(
    "\n\n".join(f"Paragraph {i} of a book, long enough." for i in range(12))
  )
  config = _config(tmp_path / "book.txt", max_documents=8)
  selection = select(config, byte_tokenizer(), str(tmp_path / "tokens"))
  assert [one.id for one in selection.documents] == [
    f"book#{i}" for i in (0, 1, 3, 4, 6, 9, 10, 11)
  ]
  splits = "rl av_sft ar_sft rl held_out rl rl ar_sft"
  assert [one.split for one in selection.documents] == splits.split()
  assert selection.position[:8].tolist() == [21, 30, 32, 33, 10, 12, 17, 31]

  digest = hashlib.sha256(documents_to_parquet(selection.documents)).hexdigest()
  assert digest == "54ee45c640b505398ea1f90e34f5b3c9f7ddbd7cf198537ebf89fe36698309a9"


def test_weights_decide_how_much_of_each_source_is_drawn(mixed, tokenizer, tmp_path):
  folder = str(tmp_path / "tokens")
  found = select(_config(mixed, weights="talks=0.75,texts=0.25"), tokenizer, folder)
  # All twelve conversations, and as many texts as keep the shares.
  parts = {name: (part.documents, part.drawn, part.kept) for name, part in found.parts.items()}
  assert parts == {"texts": (30, 4, 4), "talks": (12, 12, 12)}
  rows = [found.documents[i].source for i in found.document.tolist()]
  assert all(part.rows == rows.count(name) > 0 for name, part in found.parts.items())
  texts, _ = part_notes(found.parts)
  assert texts.startswith("texts: 4 of 30 documents drawn, 4 long enough, 16 rows (")

  again = select(_config(mixed, weights="texts=0.25,talks=0.75"), tokenizer, folder)
  assert [one.id for one in again.documents] == [one.id for one in found.documents]


@pytest.mark.parametrize(
  ("counts", "wanted", "weights", "shares"),
  [
    ([100, 50], 0, [0.5, 0.5], [50, 50]),
    ([100, 100], 100, [0.29, 0.71], [29, 71]),
    ([100, 50], 10, [0.7, 0.3], [7, 3]),
    ([10, 10, 10], 10, [1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),
    ([1000, 3], 500, [0.9, 0.1], [27, 3]),
  ],
)
def test_shares_hold_and_the_scarcest_source_says_how_many(counts, wanted, weights, shares):
  drawn, ends = sorted(draw(counts, wanted, 42, weights)), np.cumsum(counts)
  assert np.diff(np.searchsorted(drawn, [0, *ends])).tolist() == shares
  assert drawn == sorted(draw(counts, wanted, 42, weights))


@pytest.mark.parametrize(
  ("weights", "message"),
  [
    ("a=0.7,b=0.2", "add to 0.9; they must add to 1"),
    ("a=1.2,b=-0.2", "a has '1.2'; give a number above 0"),
    ("a=1,b=0", "b has '0'; give a number above 0, or leave it out"),
    ("a=0.5,b=much", "b has 'much'"),
    ("a=0.5,b=nan", "b has 'nan'"),
    ("a=0.5,c=0.5", "'c' is none of its parts; the corpus has a, b"),
    ("a=0.5,a=0.5", "'a' is there twice"),
    ("a=1", "does not say how much of b"),
    ("0.5,0.5", "'' is none of its parts"),
  ],
)
def test_weights_that_cannot_be_are_one_line_before_anything_is_read(weights, message):
  # Neither file is there: what is wrong is told before they are opened.
  with pytest.raises(NLAError, match=message) as caught:
    read_weights("a.jsonl+b.jsonl", weights)
  assert "\n" not in str(caught.value)
  with pytest.raises(NLAError, match=message):
    check_names(_named("a.jsonl+b.jsonl", weights=weights))


def test_weights_need_several_corpora_and_documents_for_each():
  with pytest.raises(NLAError, match="is one; join several"):
    read_weights("a.jsonl", "a=1")
  with pytest.raises(NLAError, match=r"a share of 0\.001 of 100 documents is none"):
    draw([1000, 1000], 100, 42, [0.999, 0.001])


def _named(corpus, **data):
  config = _config(corpus, **data)
  config.model = "random:tiny"
  return config


def test_a_copy_in_another_source_is_in_the_same_split_whoever_read_it(
  tokenizer, tmp_path, monkeypatch
):
  """Documents of one text in two files are one group, in one process as in three, and are counted."""
  for name, numbers in (("one", range(20)), ("two", range(10, 30))):
    rows = [{"text": f"{i} is the number of these words, which is all they say."} for i in numbers]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
  config = _config(f"{tmp_path / 'one.jsonl'}+{tmp_path / 'two.jsonl'}")
  folder = str(tmp_path / "tokens")
  alone = select(config, tokenizer, folder)
  several = in_processes(3, monkeypatch, lambda: select(config, byte_tokenizer(), folder))
  for found in (alone, *several):
    splits = {}
    for one in found.documents:
      splits.setdefault(one.tokens.tobytes(), set()).add((one.split, one.group))
    assert len(splits) == 30 and all(len(where) == 1 for where in splits.values())
    assert (found.counts.copies, found.counts.groups_joined, found.counts.twins) == (10, 10, 0)
    assert any("10 of 40 documents are copies" in note for note in notes(found.counts))


def test_positions_are_those_of_a_role_and_the_last_of_a_turn(mixed, tokenizer, tmp_path):
  talks, folder = mixed.split("+")[1], str(tmp_path / "tokens")
  options = {"positions_per_document": 1000, "position_minimum": 0}
  words = {}
  for roles in ("user", "assistant", "user,assistant", ""):
    found = select(_config(talks, roles=roles, **options), tokenizer, folder)
    first = found.documents[0]
    at = found.position[found.document == 0]
    words[roles] = tokenizer.decode(first.tokens[at])
  said = [f"turn {k} of talk 0" for k in range(4)]
  assert words["user"] == said[0] + said[2] and words["assistant"] == said[1] + said[3]
  assert words["user,assistant"] == "".join(said)
  # What the template writes beside its special tokens may be taken where no role is asked for.
  assert all(one in words[""] for one in said)

  last = _config(talks, roles="assistant", last_of_turn=True, **options)
  found = select(last, tokenizer, folder)
  before = [tokenizer.decode(found.documents[0].tokens[: p + 1]) for p in found.position[:2]]
  assert before[0].endswith(said[1]) and before[1].endswith(said[3])
  assert len(found.position) == 2 * 12

  # A conversation that was cut does not end a turn where it was cut.
  whole = len(found.documents[0].tokens)
  cut = select(
    _config(talks, last_of_turn=True, max_tokens=whole - 6, **options), tokenizer, folder
  )
  assert (cut.document == 0).sum() == 3


@pytest.mark.parametrize("group_by", ["user", "conversation"])
def test_conversations_of_one_user_are_one_group(tokenizer, tmp_path, group_by, monkeypatch):
  rows = [{"conversation": _talk(i), "hashed_ip": f"u{i // 3}"} for i in range(18)]
  (tmp_path / "wild.jsonl").write_text("\n".join(map(json.dumps, rows)))
  config, folder = _config(tmp_path / "wild.jsonl", group_by=group_by), str(tmp_path / "tokens")
  alone = select(config, tokenizer, folder)
  groups = [one.group for one in alone.documents]
  if group_by == "user":
    assert groups == [f"u{i // 3}" for i in range(18)]
  else:
    assert len(set(groups)) == 18
  for found in in_processes(3, monkeypatch, lambda: select(config, byte_tokenizer(), folder)):
    for one, expected in zip(found.documents, alone.documents, strict=True):
      assert one.group == expected.group and one.roles.tolist() == expected.roles.tolist()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"roles": "bot"}, "'bot' is none of system, developer, user, assistant, tool, reasoning"),
    ({"group_by": "day"}, "expected user or conversation"),
  ],
)
def test_roles_and_groups_that_nobody_knows_are_one_line_before_the_corpus_is_read(
  options, message
):
  with pytest.raises(NLAError, match=message):
    check_names(_named("missing.jsonl", **options))


def test_roles_of_texts_and_roles_that_nobody_has_are_one_line(mixed, tokenizer, tmp_path):
  texts, talks = mixed.split("+")
  for corpus, message in (
    (texts, r"roles='tool', config\.data\.last_of_turn=False: the corpus .* holds no conversation"),
    (talks, r"has a position to take.*other tokens are left out"),
  ):
    with pytest.raises(NLAError, match=message):
      select(_config(corpus, roles="tool"), tokenizer, str(tmp_path / "tokens"))
