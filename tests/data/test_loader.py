"""What a step sees depends on the seed alone."""

import json

import numpy as np
import pytest

from nla_jax.data.loader import StoreRows, batches
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError

SOURCE = [{"x": np.array([i, 2 * i], np.float32), "y": np.int32(i)} for i in range(50)]


def _take(iterator, n: int) -> list[dict]:
  return [next(iterator) for _ in range(n)]


def _assert_same(a: list[dict], b: list[dict]) -> None:
  assert len(a) == len(b)
  for left, right in zip(a, b):
    assert left.keys() == right.keys()
    for name in left:
      np.testing.assert_array_equal(left[name], right[name], strict=True)


def test_batches_are_stacked_dicts():
  batch = next(batches(SOURCE, batch_size=8, seed=0))
  assert batch["x"].shape == (8, 2) and batch["x"].dtype == np.float32
  assert batch["y"].shape == (8,) and batch["y"].dtype == np.int32
  np.testing.assert_array_equal(batch["x"][:, 1], 2 * batch["y"])


@pytest.mark.parametrize("num_threads", [0, 1, 5])
def test_a_resumed_iterator_goes_on_bit_identically(num_threads):
  whole = _take(batches(SOURCE, batch_size=8, seed=1), 20)
  first = batches(SOURCE, batch_size=8, seed=1, num_threads=num_threads)
  head = _take(first, 9)  # stops inside an epoch, after one seam
  state = json.loads(json.dumps(first.get_state()))
  second = batches(SOURCE, batch_size=8, seed=1, num_threads=num_threads)
  second.set_state(state)
  _assert_same(head + _take(second, 11), whole)


def test_state_restores_after_reading_ahead_too():
  iterator = batches(SOURCE, batch_size=8, seed=1, num_threads=4)
  _take(iterator, 3)
  state = iterator.get_state()
  ahead = _take(iterator, 4)
  iterator.set_state(state)
  _assert_same(_take(iterator, 4), ahead)


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_batches_do_not_depend_on_threads(num_threads):
  _assert_same(
    _take(batches(SOURCE, batch_size=7, seed=3, num_threads=0), 25),
    _take(batches(SOURCE, batch_size=7, seed=3, num_threads=num_threads), 25),
  )


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_batch_of_one_process(process_count):
  whole = _take(batches(SOURCE, batch_size=8, seed=3), 15)
  rows = np.split(np.arange(8), process_count)
  parts = [_take(batches(SOURCE, batch_size=8, seed=3, part=part), 15) for part in rows]
  joined = [
    {name: np.concatenate([part[step][name] for part in parts]) for name in ("x", "y")}
    for step in range(15)
  ]
  _assert_same(joined, whole)


def test_every_epoch_has_every_row_once_in_its_own_order():
  seen = np.concatenate(
    [batch["y"] for batch in batches(SOURCE, batch_size=5, seed=2, epochs=3)]
  ).reshape(3, 50)
  for epoch in seen:
    assert sorted(epoch) == list(range(50))
  assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
  other = np.concatenate([batch["y"] for batch in batches(SOURCE, batch_size=5, seed=3, epochs=1)])
  assert not np.array_equal(seen[0], other)


def test_only_the_last_incomplete_batch_of_all_is_left_out():
  taken = list(batches(SOURCE, batch_size=8, seed=0, epochs=3))
  assert len(taken) == 150 // 8 and all(len(batch["y"]) == 8 for batch in taken)


def test_without_shuffling_the_order_is_the_sources():
  taken = list(batches(SOURCE, batch_size=10, seed=0, epochs=1, shuffle=False))
  assert np.concatenate([batch["y"] for batch in taken]).tolist() == list(range(50))


def test_what_cannot_fill_a_batch_is_told():
  with pytest.raises(NLAError, match="do not fill one batch of 64"):
    batches(SOURCE, batch_size=64, seed=0, epochs=1)
  with pytest.raises(NLAError, match="do not fill"):
    batches([], batch_size=1, seed=0)
  with pytest.raises(NLAError, match="batch size is 0"):
    batches(SOURCE, batch_size=0, seed=0)
  with pytest.raises(NLAError, match="seed is -1"):
    batches(SOURCE, batch_size=8, seed=-1)


def test_a_store_is_read_a_batch_at_a_time(tmp_path):
  writer = StoreWriter(
    str(tmp_path / "s"), {"activations": ((4,), "float32"), "document": ((), "int32")}, 100, 64, 8
  )
  rows = np.arange(400, dtype=np.float32).reshape(100, 4)
  for shard in range(writer.n_shards):
    part = slice(shard * 64, min(100, shard * 64 + 64))
    writer.write_shard(
      shard, {"activations": rows[part], "document": (np.arange(100, dtype=np.int32) % 2)[part]}
    )
  writer.write_documents(
    [
      StoredDocument(str(i), str(i), split, np.zeros(3, np.int32))
      for i, split in enumerate(("held_out", "rl"))
    ]
  )
  writer.finish()
  store = Store(str(tmp_path / "s"))
  source = StoreRows(store, store.rows("rl"))
  np.testing.assert_array_equal(source[3]["activations"], rows[7])
  taken = list(batches(source, batch_size=10, seed=0, epochs=1, num_threads=3))
  seen = np.concatenate([batch["row"] for batch in taken])
  assert sorted(seen) == list(range(1, 100, 2))
  for batch in taken:
    np.testing.assert_array_equal(batch["activations"], rows[batch["row"]])
