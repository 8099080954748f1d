"""The reference pipeline's parquet files: what is written is read back, in bounded memory, or refused by name."""

import dataclasses
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nla_jax.autoencoder.prompts import AR_TEMPLATE, AV_TEMPLATE
from nla_jax.errors import NLAError
from nla_jax.interop.pairs import sidecar as model
from nla_jax.interop.reference_data.reader import ACTIVATION, DataFile, Rows
from nla_jax.interop.reference_data.sidecar import (
  DatasetSidecar,
  read_dataset_sidecar,
  write_dataset_sidecar,
)
from nla_jax.interop.reference_data.writer import INJECT, DataWriter

N, D, LAYER = 300, 24, 5
TOKENS = model.Tokens(
  injection_char="㈎", injection_token_id=149705, left_id=29, right_id=522, suffix_ids=(1318, 29)
)


def _rows(n: int = N) -> Rows:
  generator = np.random.default_rng(0)
  return Rows(
    [f"doc {i // 10}" for i in range(n)],
    51 + np.arange(n, dtype=np.int64),
    generator.normal(size=(n, D)).astype(np.float32),
    [f"words {i}" for i in range(n)],
    [f"about “{i}”\n\nand {{braces}}" for i in range(n)],
  )


def _sidecar(stage: str) -> DatasetSidecar:
  prompted = (
    {}
    if stage == "base"
    else {"tokens": TOKENS, "av_template": AV_TEMPLATE, "ar_template": AR_TEMPLATE}
  )
  return DatasetSidecar(
    dataset_id="test",
    stage=stage,
    row_count=0,
    base_model="somebody/model",
    d_model=D,
    layer_index=LAYER,
    corpus="texts",
    positions_per_doc=10,
    **prompted,
  )


def _write(path, stage: str, *, explained: bool = False, texts: bool = True, chunk: int = 70):
  rows = _rows()
  with DataWriter(
    path,
    stage,
    D,
    LAYER,
    explained=explained,
    texts=texts,
    av_template=AV_TEMPLATE,
    ar_template=AR_TEMPLATE,
  ) as writer:
    for start in range(0, N, chunk):
      part = slice(start, start + chunk)
      writer.write(Rows(*(getattr(rows, field.name)[part] for field in dataclasses.fields(Rows))))
    writer.finish(_sidecar(stage))
  return path


def _read(path, start: int = 0, **wanted) -> Rows:
  parts = list(DataFile(path).read(start, **wanted))
  assert [first for first, _ in parts] == list(
    np.cumsum([start, *(len(rows) for _, rows in parts)])[:-1]
  )
  join = lambda name: [item for _, rows in parts for item in getattr(rows, name) or ()]
  return Rows(
    join("doc_ids"),
    np.concatenate([rows.n_raw_tokens for _, rows in parts]),
    np.concatenate([rows.activations for _, rows in parts]) if wanted.get("activations") else None,
    join("texts"),
    join("explanations"),
  )


@pytest.mark.parametrize(
  ("stage", "explained", "texts"),
  [
    ("base", False, True),
    ("base", True, True),
    ("av_sft", True, True),
    ("av_sft", True, False),
    ("ar_sft", True, False),
    ("rl", False, True),
    ("rl", False, False),
  ],
)
def test_every_stage_is_read_back_as_it_was_written(tmp_path, stage, explained, texts):
  path = _write(tmp_path / "data.parquet", stage, explained=explained, texts=texts)
  expected, found = _rows(), _read(path, activations=True, texts=True, explanations=True)
  np.testing.assert_array_equal(found.activations, expected.activations)
  np.testing.assert_array_equal(found.n_raw_tokens, expected.n_raw_tokens)
  assert found.doc_ids == expected.doc_ids
  assert found.texts == (expected.texts if texts else [])
  assert found.explanations == (expected.explanations if explained else [])
  side = read_dataset_sidecar(path)
  assert (side.stage, side.row_count, side.layer_index) == (stage, N, LAYER)


def test_columns_are_those_of_the_interchange_format(tmp_path):
  names = lambda stage, **options: (
    pq.read_schema(_write(tmp_path / f"{stage}{len(options)}.parquet", stage, **options)).names
  )
  assert names("base") == [
    "n_raw_tokens",
    "detokenized_text_truncated",
    "activation_vector",
    "activation_layer",
    "doc_id",
  ]
  assert names("base", explained=True)[-1] == "api_explanation"
  assert names("av_sft", texts=False) == [
    "prompt",
    "response",
    "activation_vector",
    "n_raw_tokens",
    "activation_layer",
    "doc_id",
  ]
  assert names("rl", texts=False) == [
    "prompt",
    "activation_vector",
    "n_raw_tokens",
    "activation_layer",
    "doc_id",
  ]
  table = pq.read_table(_write(tmp_path / "t.parquet", "av_sft"))
  assert table.schema.field(ACTIVATION).type == pa.list_(pa.float32(), D)
  prompt = table["prompt"][0].as_py()
  assert prompt == [{"role": "user", "content": AV_TEMPLATE.format(injection_char=INJECT)}]
  assert table["response"][0].as_py() == f"<explanation>\n{_rows().explanations[0]}\n</explanation>"


@pytest.mark.parametrize("start", [0, 1, 69, 70, 71, 299, 300])
def test_reading_may_begin_at_any_row(tmp_path, start):
  path = _write(tmp_path / "data.parquet", "base")
  rows = [(first, part) for first, part in DataFile(path).read(start, activations=True)]
  found = np.concatenate([np.zeros((0, D), np.float32), *(part.activations for _, part in rows)])
  np.testing.assert_array_equal(found, _rows().activations[start:])
  assert not rows or rows[0][0] == start


@pytest.mark.parametrize(
  "kind",
  [
    pa.list_(pa.float32()),
    pa.large_list(pa.float32()),
    pa.list_(pa.float64(), D),
    pa.large_list(pa.float16()),
  ],
)
def test_lists_of_other_kinds_are_read_too(tmp_path, kind):
  path = _write(tmp_path / "data.parquet", "base")
  table = pq.read_table(path)
  expected = _rows().activations.astype(kind.value_type.to_pandas_dtype()).astype(np.float32)
  column = pa.array(list(_rows().activations.astype(kind.value_type.to_pandas_dtype())), kind)
  index = table.schema.names.index(ACTIVATION)
  pq.write_table(table.set_column(index, ACTIVATION, column), path, row_group_size=77)
  np.testing.assert_array_equal(_read(path, 50, activations=True).activations, expected[50:])


def _damage(path, name, value, row):
  table = pq.read_table(path)
  column = table[name].to_pylist()
  column[row] = value
  kind = table.schema.field(name).type
  kind = pa.list_(pa.float32()) if name == ACTIVATION else kind
  pq.write_table(
    table.set_column(table.schema.names.index(name), name, pa.array(column, kind)), path
  )


@pytest.mark.parametrize(
  ("stage", "name", "value", "words"),
  [
    ("base", ACTIVATION, [1.0] * (D - 1), "row 123 has an activation that is not 24 wide"),
    ("base", ACTIVATION, [float("nan")] * D, "row 123 has an activation that is not finite"),
    ("base", ACTIVATION, None, "row 123 has no activation_vector"),
    ("base", "activation_layer", LAYER + 1, "row 123 is of another layer than the sidecar's 5"),
    ("base", "n_raw_tokens", 0, "row 123 has n_raw_tokens below 1"),
    ("base", "doc_id", None, "row 123 has no doc_id"),
    ("av_sft", "response", "no tags", "row 123: its response holds no <explanation>"),
    ("ar_sft", "prompt", "something else", "row 123: its prompt is not the AR template"),
  ],
)
def test_a_bad_row_is_named(tmp_path, stage, name, value, words):
  path = _write(tmp_path / "data.parquet", stage)
  _damage(path, name, value, 123)
  with pytest.raises(NLAError, match=words):
    _read(path, activations=True, explanations=True)


@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("n_raw_tokens", ["7"] * N),
    ("doc_id", [7.5] * (N - 1) + [None]),
    ("detokenized_text_truncated", [b"text"] * N),
  ],
)
def test_a_column_of_another_type_is_named_and_not_blamed_as_damage(tmp_path, name, values):
  path = _write(tmp_path / "data.parquet", "base")
  table = pq.read_table(path)
  pq.write_table(table.set_column(table.schema.names.index(name), name, pa.array(values)), path)
  with pytest.raises(NLAError) as caught:
    _read(path, texts=True)
  said = "has no doc_id" if name == "doc_id" else f"has the column '{name}' of type"
  assert said in str(caught.value) and "damaged" not in str(caught.value)


def test_what_contradicts_its_sidecar_is_refused(tmp_path):
  path = _write(tmp_path / "data.parquet", "base")
  side = read_dataset_sidecar(path)
  write_dataset_sidecar(path, dataclasses.replace(side, row_count=N + 1))
  with pytest.raises(NLAError, match="has 300 rows, its sidecar says 301"):
    DataFile(path)
  write_dataset_sidecar(path, dataclasses.replace(side, stage="av_sft", tokens=TOKENS))
  with pytest.raises(NLAError, match="lacks the column prompt"):
    DataFile(path)
  model.write_yaml(tmp_path / "data.parquet.nla_meta.yaml", {"kind": "nla_model"})
  with pytest.raises(NLAError, match="expected nla_dataset"):
    DataFile(path)
  (tmp_path / "data.parquet.nla_meta.yaml").unlink()
  with pytest.raises(NLAError, match="no sidecar"):
    DataFile(path)
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(NLAError, match="cannot be read as parquet"):
    DataFile(path)


def test_a_file_that_was_not_finished_is_not_there(tmp_path):
  path = tmp_path / "data.parquet"
  with pytest.raises(KeyboardInterrupt), DataWriter(path, "base", D, LAYER) as writer:
    writer.write(dataclasses.replace(_rows(), explanations=None))
    raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())
  _write(path, "base")
  with pytest.raises(NLAError, match="already there"):
    _write(path, "base")


def test_two_contents_have_two_fingerprints(tmp_path):
  first, second = (
    DataFile(_write(tmp_path / f"{stage}.parquet", stage)).fingerprint for stage in ("base", "rl")
  )
  assert first != second == DataFile(tmp_path / "rl.parquet").fingerprint


MEASURE = """
import resource, sys
import numpy as np
from nla_jax.interop.reference_data.reader import DataFile
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows, repeat = 0, int(sys.argv[2])
for first, part in DataFile(sys.argv[1]).read(activations=True):
  marks = part.activations[:, 0].astype(np.int64) + (part.activations[:, -1].astype(np.int64) << 20)
  assert (marks == np.arange(first, first + len(part)) % repeat).all()
  rows += len(part)
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10)
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("one_group", [False, True])
def test_rows_past_four_gibibytes_are_right_in_bounded_memory(tmp_path, one_group):
  """540,000 rows of width 2048 (4.1 GiB): in our row groups, and in one single group as another writer might."""
  d, n, path, chunk = 2048, 540_000, tmp_path / "large.parquet", 4000

  def part(start: int) -> Rows:
    rows = np.arange(start, start + chunk)
    vectors = np.zeros((chunk, d), np.float32)
    vectors[:, 0], vectors[:, -1] = rows & 0xFFFFF, rows >> 20
    return Rows(["a document"] * chunk, rows + 1, vectors, [""] * chunk)

  with DataWriter(path, "base", d, LAYER) as writer:
    for start in range(0, chunk if one_group else n, chunk):
      writer.write(part(start))
    writer.finish(dataclasses.replace(_sidecar("base"), d_model=d))
  if one_group:
    same = pq.read_table(path).combine_chunks()
    pq.write_table(
      pa.concat_tables([same] * (n // chunk)), path, row_group_size=n, compression="zstd"
    )
    assert pq.ParquetFile(path).num_row_groups == 1
    write_dataset_sidecar(path, dataclasses.replace(read_dataset_sidecar(path), row_count=n))
  done = subprocess.run(
    [sys.executable, "-c", MEASURE, str(path), str(chunk if one_group else n)],
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  rows, mebibytes = map(int, done.stdout.split())
  assert rows == n
  assert mebibytes < 600, f"reading took {mebibytes} MiB beyond the imports"
