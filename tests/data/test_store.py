"""What was written is what is read, after any interruption, and damage has a name."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorstore as ts

from nla_jax.data.store import layout
from nla_jax.data.store.documents import Documents, StoredDocument, documents_to_parquet
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError

ROWS, WIDTH, SHARD, CHUNK = 1000, 16, 256, 64
SPLITS = ("held_out", "av_sft", "ar_sft", "rl")


def _rows(dtype=np.float32) -> dict[str, np.ndarray]:
  generator = np.random.default_rng(0)
  activations = generator.normal(size=(ROWS, WIDTH)).astype(dtype)
  activations[:SHARD] = 0  # as a whole shard of fill values would be
  return {
    "activations": activations,
    "document": np.arange(ROWS, dtype=np.int32) // 10,
    "position": generator.integers(50, 500, ROWS).astype(np.int32),
    "norm": np.linalg.norm(activations.astype(np.float32), axis=1),
    "next_tokens": generator.integers(0, 9999, (ROWS, 3)).astype(np.int32),
  }


def _documents() -> list[StoredDocument]:
  return [
    StoredDocument(
      f"page {i // 2}#{i % 2}",
      f"page {i // 2}",
      SPLITS[i // 2 % 4],
      np.arange(i % 7, dtype=np.int32) + i,
    )
    for i in range(ROWS // 10)
  ]


def _writer(path, rows, **changes) -> StoreWriter:
  arrays = {name: (value.shape[1:], value.dtype.name) for name, value in rows.items()}
  made_from = changes.pop("made_from", {"layer": 20})
  return StoreWriter(
    str(path),
    changes.pop("arrays", arrays),
    changes.pop("n_rows", ROWS),
    changes.pop("shard_rows", SHARD),
    CHUNK,
    made_from,
  )


def _write(writer: StoreWriter, rows, shards) -> None:
  for shard in shards:
    part = writer.shard_range(shard)
    writer.write_shard(shard, {name: value[part.start : part.stop] for name, value in rows.items()})


def _store(path, dtype=np.float32) -> tuple[dict[str, np.ndarray], Store]:
  rows = _rows(dtype)
  writer = _writer(path, rows)
  _write(writer, rows, range(writer.n_shards))
  writer.write_documents(_documents())
  writer.finish({"mean": [1.0]})
  return rows, Store(str(path))


def _contents(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
  }


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_rows_come_back_bit_for_bit_in_the_order_asked_for(tmp_path, dtype):
  rows, store = _store(tmp_path / "a store", dtype)
  assert len(store) == ROWS and store.d == WIDTH and store.manifest["mean"] == [1.0]
  wanted = np.array([999, 0, 300, 300, 511, 512, 7])
  for name, value in rows.items():
    # Activations come back as float32, however they are kept.
    expected = np.float32 if name == "activations" else value.dtype
    assert store.read(name, wanted).dtype == expected
    np.testing.assert_array_equal(store.read(name, wanted), value[wanted])
    np.testing.assert_array_equal(store.read(name, slice(250, 260)), value[250:260])
    np.testing.assert_array_equal(store.read(name, slice(None, None, 7)), value[::7])
    assert store.read(name, []).shape == (0, *value.shape[1:])
  store.verify()


def test_the_last_shard_is_the_rest(tmp_path):
  writer = _writer(tmp_path / "s", _rows())
  assert writer.n_shards == 4 and writer.shard_range(3) == range(768, 1000)


def test_documents_come_back_with_their_tokens_and_splits(tmp_path):
  rows, store = _store(tmp_path / "s")
  assert len(store.documents) == ROWS // 10
  for expected, found in zip(_documents(), store.documents, strict=True):
    assert (found.id, found.group, found.split) == (expected.id, expected.group, expected.split)
    assert found.tokens.dtype == np.int32
    np.testing.assert_array_equal(found.tokens, expected.tokens)
  splits = [document.split for document in _documents()]
  for split in SPLITS:
    expected = [i for i in range(ROWS) if splits[rows["document"][i]] == split]
    assert store.rows(split).tolist() == expected and store.rows(split).dtype == np.int64
  with pytest.raises(NLAError, match="no split 'test'; it has ar_sft, av_sft, held_out, rl"):
    store.rows("test")


def test_documents_know_their_source_where_there_are_several():
  documents = _documents()
  one, several = (
    documents_to_parquet(documents),
    documents_to_parquet(
      [dataclasses.replace(document, source="ab"[i % 2]) for i, document in enumerate(documents)]
    ),
  )
  # A store of one corpus has the columns it had before there were sources.
  assert pq.read_table(io.BytesIO(one)).column_names == ["id", "group", "split", "tokens"]
  assert Documents(one).sources == [""] * len(documents)
  assert Documents(several).sources == ["a", "b"] * (len(documents) // 2)
  assert Documents(several)[3].source == "b"
  assert Documents(several)[3].tokens.tolist() == documents[3].tokens.tolist()


def test_a_writer_that_was_dropped_and_opened_again_writes_the_same_store(tmp_path):
  rows, _ = _store(tmp_path / "whole")
  first = _writer(tmp_path / "parts", rows)
  _write(first, rows, [0, 2])
  del first
  with pytest.raises(
    NLAError, match=r"was interrupted \(2 shards are written.*run the same command again"
  ):
    Store(str(tmp_path / "parts"))
  second = _writer(tmp_path / "parts", rows)
  assert second.done == {0, 2}
  with pytest.raises(NLAError, match="lacks 2 of 4 shards"):
    second.finish()
  _write(second, rows, sorted(set(range(second.n_shards)) - second.done))
  second.write_documents(_documents())
  second.finish({"mean": [1.0]})
  assert _contents(tmp_path / "parts") == _contents(tmp_path / "whole")


KILLED = """
import sys, numpy as np
from nla_jax.data.store.writer import StoreWriter
writer = StoreWriter(sys.argv[1], {"activations": ((2048,), "float32"), "document": ((), "int32")}, 64 * 512, 512, 64)
for shard in sorted(set(range(writer.n_shards)) - writer.done):
  writer.write_shard(shard, {"activations": np.full((512, 2048), shard, np.float32),
                             "document": np.full(512, shard, np.int32)})
  print(shard, flush=True)
"""


def test_sigkill_leaves_only_whole_recorded_shards(tmp_path):
  folder = tmp_path / "killed"
  for wait in (0.0, 0.013):  # at two different points of a shard's writing
    process = subprocess.Popen(
      [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True
    )
    said = [int(process.stdout.readline()) for _ in range(3)]
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    arrays = {"activations": ((2048,), "float32"), "document": ((), "int32")}
    writer = StoreWriter(str(folder), arrays, 64 * 512, 512, 64)
    assert set(said) <= writer.done and len(writer.done) < writer.n_shards
  for shard in sorted(set(range(64)) - writer.done):
    writer.write_shard(
      shard,
      {
        "activations": np.full((512, 2048), shard, np.float32),
        "document": np.full(512, shard, np.int32),
      },
    )
  writer.write_documents(
    [StoredDocument(str(i), str(i), "rl", np.zeros(1, np.int32)) for i in range(64)]
  )
  writer.finish()
  store = Store(str(folder))
  store.verify()
  np.testing.assert_array_equal(store.read("activations", np.arange(64) * 512)[:, 5], np.arange(64))


def test_a_store_of_a_hundred_million_rows_counts_right_to_its_last_row(tmp_path):
  """Sparse: its first and its last shard alone are written."""
  n, shard = 100_000_003, 16384
  arrays = {"activations": ((2,), "int8"), "row": ((), "int32")}
  writer = StoreWriter(str(tmp_path), arrays, n, shard, 64)
  last = writer.n_shards - 1
  assert writer.n_shards == 6104 and writer.shard_range(last) == range(last * shard, n)
  for i in (0, last):
    rows = np.array(writer.shard_range(i), np.int32)
    columns = {"activations": np.ones((len(rows), 2), np.int8), "row": rows}
    writer.write_shard(i, columns)

  again = StoreWriter(str(tmp_path), arrays, n, shard, 64)
  assert again.done == {0, last}
  with pytest.raises(NLAError, match=r"lacks 6102 of 6104 shards \(first: 1\)"):
    again.finish()
  layout_of = json.loads((tmp_path / layout.LAYOUT).read_text())
  found = ts.open(layout.array_spec(str(tmp_path), layout_of, "row"), open=True).result()
  assert int(found[n - 1].read().result()) == n - 1 and found.shape == (n,)


def test_a_lock_left_by_a_dead_process_does_not_stop_the_next(tmp_path):
  rows = _rows()
  writer = _writer(tmp_path / "s", rows)
  (tmp_path / "s/activations/c/0").mkdir(parents=True)
  (tmp_path / "s/activations/c/0/0.__lock").write_bytes(b"half of a shard")
  assert writer.done == set()
  _write(writer, rows, [0])
  assert writer.done == {0}


def test_a_flipped_byte_is_named_on_read_and_on_verify(tmp_path):
  rows, _ = _store(tmp_path / "s")
  path = tmp_path / "s/activations/c/1/0"
  damaged = bytearray(path.read_bytes())
  damaged[100] ^= 1
  path.write_bytes(damaged)
  store = Store(str(tmp_path / "s"))
  np.testing.assert_array_equal(store.read("activations", [0, 999]), rows["activations"][[0, 999]])
  for attempt in (
    lambda: store.read("activations", [3, SHARD + 1]),
    store.verify,
    lambda: store.verify(1),
  ):
    with pytest.raises(
      NLAError, match=r"shard 1 of the activation store is damaged: .*/activations/c/1/0 "
    ) as caught:
      attempt()
    assert "\n" not in str(caught.value) and "shards/000001.json" in str(caught.value)
  store.verify(0)


def test_every_byte_of_a_shard_file_is_guarded(tmp_path):
  _store(tmp_path / "s")
  path = tmp_path / "s/norm/c/2"
  whole = path.read_bytes()
  for at in range(0, len(whole), 97):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
    with pytest.raises(NLAError, match=r"shard 2 .*norm/c/2 "):
      Store(str(tmp_path / "s")).verify(2)


def test_the_remedy_that_the_message_gives_mends_the_store(tmp_path):
  rows, _ = _store(tmp_path / "s")
  before = _contents(tmp_path / "s")
  (tmp_path / "s/activations/c/1/0").write_bytes(b"damaged")
  (tmp_path / "s/shards/000001.json").unlink()
  (tmp_path / "s/manifest.json").unlink()
  writer = _writer(tmp_path / "s", rows)
  assert writer.done == {0, 2, 3}
  _write(writer, rows, [1])
  writer.finish({"mean": [1.0]})
  assert _contents(tmp_path / "s") == before


def test_a_whole_file_of_another_shard_is_found_by_verify(tmp_path):
  _store(tmp_path / "s")
  (tmp_path / "s/norm/c/1").write_bytes((tmp_path / "s/norm/c/2").read_bytes())
  with pytest.raises(NLAError, match=r"shard 1 .*norm/c/1 \(its checksum differs\)"):
    Store(str(tmp_path / "s")).verify()


def test_a_truncated_or_missing_file_is_never_read_as_zeros(tmp_path):
  _store(tmp_path / "s")
  path = tmp_path / "s/activations/c/0/0"
  whole = path.read_bytes()
  path.write_bytes(whole[:500])
  with pytest.raises(NLAError, match=r"shard 0 .*activations/c/0/0"):
    Store(str(tmp_path / "s")).read("activations", [0])
  path.unlink()
  with pytest.raises(NLAError, match=r"shard 0 .*activations/c/0/0 \(the file is missing\)"):
    Store(str(tmp_path / "s"))
  assert _writer(tmp_path / "s", _rows()).done == {1, 2, 3}


def test_damaged_documents_and_manifests_are_told(tmp_path):
  _, store = _store(tmp_path / "s")
  (tmp_path / "s/documents.parquet").write_bytes(b"PAR1")
  with pytest.raises(NLAError, match=r"documents.parquet is missing or damaged"):
    store.documents  # noqa: B018
  (tmp_path / "s/manifest.json").write_text("{")
  with pytest.raises(NLAError, match=r"manifest.json is damaged"):
    Store(str(tmp_path / "s"))
  with pytest.raises(NLAError, match="there is no activation store"):
    Store(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
  ("changes", "field"),
  [
    ({"n_rows": 999}, "n_rows is 1000, but 999"),
    ({"shard_rows": 512}, "shard_rows is 256, but 512"),
    ({"made_from": {"layer": 21}}, "made_from.layer is 20, but 21"),
    ({"made_from": {"layer": 20, "seed": 1}}, "made_from.seed is null, but 1"),
    ({"arrays": {"activations": ((8,), "float32")}}, "arrays is "),
  ],
)
def test_a_folder_of_another_origin_is_refused_with_the_field(tmp_path, changes, field):
  _writer(tmp_path / "s", _rows())
  with pytest.raises(NLAError, match=field):
    _writer(tmp_path / "s", _rows(), **changes)


def test_the_content_hash_follows_the_content(tmp_path):
  rows, store = _store(tmp_path / "a")
  other = _writer(tmp_path / "b", rows)
  rows["norm"][5] += 1
  _write(other, rows, range(4))
  other.write_documents(_documents())
  assert other.finish()["content_hash"] != store.manifest["content_hash"]


def test_a_wrong_shape_dtype_or_row_is_refused(tmp_path):
  rows, store = _store(tmp_path / "s")
  writer = _writer(tmp_path / "s", rows)
  part = {name: value[:SHARD] for name, value in rows.items()}
  for wrong in ({"norm": part["norm"][:5]}, {"norm": part["norm"].astype(np.float64)}):
    with pytest.raises(ValueError, match="norm of shard 0"):
      writer.write_shard(0, part | wrong)
  for outside in ([1000], [-1]):
    with pytest.raises(NLAError, match="which has rows 0 to 999"):
      store.read("norm", outside)
  with pytest.raises(NLAError, match="no array 'norms'; it has activations, document"):
    store.read("norms", [0])


def test_a_url_is_as_good_as_a_path(tmp_path):
  rows, _ = _store(f"file://{tmp_path}/s")
  np.testing.assert_array_equal(
    Store(str(tmp_path / "s")).read("norm", slice(0, ROWS)), rows["norm"]
  )
  with pytest.raises(NLAError, match="neither a path nor a TensorStore URL"):
    Store("nowhere://bucket/s")


FULL = """
import resource, sys, numpy as np
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
writer = StoreWriter(sys.argv[1], {"activations": ((64,), "float32"), "document": ((), "int32")}, 512, 256, 64)
shard = {"activations": np.ones((256, 64), np.float32), "document": np.zeros(256, np.int32)}
writer.write_shard(0, shard)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
  writer.write_shard(1, shard)
except NLAError as error:
  sys.exit(f"{sorted(writer.done)} {error}")
"""


def test_a_full_disk_names_the_path_and_keeps_what_is_written(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", FULL, str(tmp_path / "s")], capture_output=True, text=True
  )
  assert done.returncode == 1
  assert done.stderr.startswith(f"[0] no room left to write {tmp_path}/s") and "kept" in done.stderr


def test_a_path_that_is_a_file_is_told(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(NLAError, match="is a file, and a folder is expected"):
    _writer(tmp_path / "file", _rows())
