"""Explanations belong to rows; a file from elsewhere is matched or refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nla_jax.data.explanations import read_explanations, read_manifest, write_explanations
from nla_jax.data.teachers.file import match_rows, read_teacher_file
from nla_jax.errors import NLAError

TEXTS = ['Next: a\n\nEnds: "b"', "ℵ and <explanation>", " spaced "]


def test_explanations_come_back_by_row(tmp_path):
  write_explanations(str(tmp_path / "e"), np.array([5, 2, 9]), TEXTS, {"provider": "readout"})
  assert read_explanations(str(tmp_path / "e")) == {5: TEXTS[0], 2: TEXTS[1], 9: TEXTS[2]}
  assert read_manifest(str(tmp_path / "e"))["provider"] == "readout"
  write_explanations(str(tmp_path / "e"), np.array([1]), ["only"])
  assert read_explanations(str(tmp_path / "e")) == {1: "only"}


def test_unfinished_damaged_and_empty_explanations_are_told(tmp_path):
  with pytest.raises(NLAError, match="no finished explanations"):
    read_explanations(str(tmp_path / "none"))
  write_explanations(str(tmp_path / "e"), np.array([5]), ["text"])
  table = tmp_path / "e/explanations.parquet"
  table.write_bytes(table.read_bytes()[:-1])
  with pytest.raises(NLAError, match="missing or damaged"):
    read_explanations(str(tmp_path / "e"))
  with pytest.raises(NLAError, match="row 7 is empty"):
    write_explanations(str(tmp_path / "f"), np.array([5, 7]), ["text", " "])
  with pytest.raises(ValueError, match="distinct"):
    write_explanations(str(tmp_path / "f"), np.array([5, 5]), ["a", "b"])


@pytest.mark.parametrize("place", ["position", "n_raw_tokens"])
@pytest.mark.parametrize("text", ["explanation", "api_explanation"])
def test_teacher_files_are_read_in_both_formats_and_spellings(tmp_path, place, text):
  numbers = [50, 51] if place == "position" else [51, 52]
  rows = [
    {"doc_id": "a", place: number, text: f"t{i}", "other": 1} for i, number in enumerate(numbers)
  ]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
  (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
  for name in ("t.parquet", "t.jsonl"):
    texts = read_teacher_file(str(tmp_path / name))
    assert texts == {("a", 50): "t0", ("a", 51): "t1"}
    assert match_rows(texts, [("a", 51), ("a", 50)], name) == ["t1", "t0"]


def test_missing_rows_are_counted_and_the_first_is_named():
  with pytest.raises(
    NLAError,
    match="explains 1 of the 3 rows asked for; the first of 2 missing is position 60 of "
    "document 'b'",
  ):
    match_rows({("a", 50): "t"}, [("a", 50), ("b", 60), ("c", 70)], "t.jsonl")


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    ('{"doc_id": "a", "position": 1}', "line 1 has 'doc_id', 'position'; it needs"),
    ('{"doc_id": "a", "position": 1, "explanation": "t"}\n{oops', "line 2 is not JSON"),
    ("[1]", "line 1 is a JSON list"),
    ('{"doc_id": "a", "position": "x", "explanation": "t"}', "line 1 has position 'x'"),
    ('{"doc_id": "a", "position": 1, "explanation": ""}', "not empty"),
    (
      '{"doc_id": "a", "position": 1, "explanation": "t"}\n{"doc_id": "a", "n_raw_tokens": 2, "explanation": "u"}',
      "line 2 explains position 1 of document 'a' a second time",
    ),
    ("", "holds no explanation"),
  ],
)
def test_bad_teacher_files_are_named_with_the_line(tmp_path, lines, message):
  path = tmp_path / "t.jsonl"
  path.write_text(lines)
  with pytest.raises(NLAError, match=message) as caught:
    read_teacher_file(str(path))
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_no_known_kind_or_place_is_told(tmp_path):
  with pytest.raises(NLAError, match="does not exist"):
    read_teacher_file(str(tmp_path / "none.jsonl"))
  (tmp_path / "t.csv").write_text("")
  with pytest.raises(NLAError, match=r"neither .parquet nor .jsonl"):
    read_teacher_file(str(tmp_path / "t.csv"))
  (tmp_path / "t.parquet").write_text("x")
  with pytest.raises(NLAError, match="cannot be read as parquet"):
    read_teacher_file(str(tmp_path / "t.parquet"))


def test_a_table_without_the_columns_is_told_with_its_first_row(tmp_path):
  pq.write_table(pa.table({"words": ["a"]}), tmp_path / "t.parquet")
  with pytest.raises(NLAError, match=r"t.parquet row 0 has nothing; it needs doc_id"):
    read_teacher_file(str(tmp_path / "t.parquet"))
