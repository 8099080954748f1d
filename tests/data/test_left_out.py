"""Copies stay on one side of the splits, and what of a corpus is left out is counted and said with why."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nla_jax.cli.main import main
from nla_jax.config import default_config
from nla_jax.data.corpora.read import read_corpus
from nla_jax.data.left_out import notes
from nla_jax.data.positions import count_twins, join_copies
from nla_jax.data.selection import select
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer


@pytest.fixture
def chosen(tmp_path):
  """A function: what is selected of these rows of a JSON lines file."""

  def make(rows, **data):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    config = default_config()
    config.corpus = str(path)
    config.data.update({"position_minimum": 8, "positions_per_document": 4, "max_tokens": 60})
    config.data.update(data)
    return select(config, byte_tokenizer(), str(tmp_path / "tokens"))

  return make


def _texts(n: int) -> list[str]:
  generator = random.Random(3)
  return ["".join(generator.choices("abcdefgh ", k=60)) for _ in range(n)]


@pytest.mark.parametrize("tail", ["", " and another end"])
def test_no_copy_of_a_held_out_text_is_trained_on(tail, chosen):
  """Copies under ids of their own, and, behind the cut, with ends of their own."""
  rows = [
    {"id": f"{c}-{i}", "text": text + tail * c}
    for c in range(5)
    for i, text in enumerate(_texts(20))
  ]
  found = chosen(rows)
  splits = {}
  for one in found.documents:
    splits.setdefault(one.tokens.tobytes(), set()).add(one.split)
  assert all(len(names) == 1 for names in splits.values()) and len(splits) == 20
  assert found.counts.copies == 80 and found.counts.groups_joined == 80
  assert len({one.group for one in found.documents}) == 20
  assert "80 of 100 documents are copies" in notes(found.counts)[0]


def test_groups_that_share_one_text_are_joined_and_their_other_texts_with_them():
  groups, copies = join_copies(["c", "b", "b", "a", "d"], [[1], [1], [2], [2], [3]])
  assert groups == ["a", "a", "a", "a", "d"] and copies == 2


def test_without_copies_groups_stay_as_they_are_and_a_copy_in_its_own_group_changes_nothing():
  groups = ["z", "y", "z", "x"]
  assert join_copies(groups, [[1], [2], [3], [4]]) == (groups, 0)
  assert join_copies(groups, [[1], [2], [1], [4]]) == (groups, 1)


def test_many_names_of_one_text_are_joined_in_no_time():
  names = [f"{i:06d}" for i in range(50_000)][::-1]
  assert set(join_copies(names, [[7]] * len(names))[0]) == {"000000"}


def test_rows_with_the_context_of_a_trained_row_are_counted():
  documents = [[1, 2, 3, 4], [1, 2, 9, 9], [5, 2, 3, 4]]
  document, position = np.array([0, 0, 1, 1, 2]), np.array([1, 3, 1, 2, 1])
  held_out = np.array([True, True, False, False, False])
  assert count_twins(documents, document, position, held_out) == 1


def test_documents_that_begin_alike_are_said(chosen):
  same = "the same beginning of all "
  found = chosen([{"text": same + text} for text in _texts(40)], positions_per_document=30)
  said = [note for note in notes(found.counts) if "have the context of a row" in note]
  assert len(said) == 1 and found.counts.twins > 0 and found.counts.copies == 0


@pytest.mark.parametrize("nothing", ["NaN", '""', '"  "', "null"])
def test_documents_without_a_group_are_their_own(nothing, tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text("\n".join(f'{{"text": "a", "id": {i}, "group": {nothing}}}' for i in range(3)))
  assert [one.group for one in read_corpus(str(path))] == ["0", "1", "2"]


def test_gaps_in_a_table_of_floats_are_no_names(tmp_path):
  columns = {"text": ["a", "b", "c"], "group": [1.0, float("nan"), float("nan")]}
  pq.write_table(pa.table({**columns, "id": columns["group"]}), tmp_path / "x.parquet")
  found = list(read_corpus(str(tmp_path / "x.parquet")))
  assert [(one.id, one.group) for one in found] == [("1.0", "1.0"), ("x#1", "x#1"), ("x#2", "x#2")]


def test_short_documents_are_counted_in_terminal_and_manifest(tmp_path, capsys):
  root = __file__.split("tests")[0]
  rows = [{"text": "short" if i % 10 else f"{i} a document that is long enough"} for i in range(90)]
  (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
  run = [f"--config={root}configs/tiny.py", f"--workdir={tmp_path / 'run'}"]
  assert main(["extract", *run, f"--config.corpus={tmp_path / 'x.jsonl'}"]) == 0
  said = "81 of 90 documents have no more than 20 tokens and are left out"
  assert f"extract: {said}" in capsys.readouterr().err

  facts = json.loads((tmp_path / "run" / "activations" / "manifest.json").read_text())["facts"]
  assert said in facts["notes"] and facts["left_out"]["too_short"] == 81
  assert sum(facts["left_out"]["groups"].values()) == facts["groups"] == 9


def test_too_few_groups_say_why_they_are_so_few(chosen):
  rows = [{"text": "short" if i > 2 else f"{i} long enough text"} for i in range(50)]
  with pytest.raises(
    NLAError, match=r"3 group\(s\) and 4 splits.*; 47 of 50 documents have no more"
  ):
    chosen(rows)


def test_a_corpus_of_copies_alone_is_split_by_name_and_that_is_said(chosen):
  found = chosen([{"text": text} for text in _texts(2) * 10], positions_per_document=40)
  assert len({one.group for one in found.documents}) == 20 and found.counts.twins > 0
  assert "18 of 20 documents are copies" in notes(found.counts)[0]
  assert "too few other texts to keep copies in one split" in notes(found.counts)[0]


def test_splits_of_one_group_are_said(chosen):
  found = chosen([{"text": text} for text in _texts(5)])
  assert "of one group of documents each: ar_sft, av_sft, held_out" in notes(found.counts)
