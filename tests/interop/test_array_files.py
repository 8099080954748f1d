"""`nla convert` between a store and arrays: every row comes back bit for bit, and what does not fit is one line."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nla_jax import workdir
from nla_jax.cli import convert
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.interop.array_files import reader, to_store
from nla_jax.interop.array_files.from_store import chosen_rows

D, N, SPLITS = 8, 150, ("held_out", "av_sft", "ar_sft", "rl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A store of 150 rows, 5 of each of 30 documents of two sources."""
  generator = np.random.default_rng(0)
  documents = [
    StoredDocument(
      f"a{i}", f"g{i // 2}", SPLITS[i // 2 % 4], np.arange(6 + i, dtype=np.int32), f"source {i % 2}"
    )
    for i in range(30)
  ]
  vectors = generator.normal(size=(N, D)).astype(np.float32)
  columns = {
    "activations": vectors,
    "document": np.repeat(np.arange(30, dtype=np.int32), 5),
    "position": np.tile(np.arange(1, 6, dtype=np.int32), 30),
    "norm": np.linalg.norm(vectors, axis=1),
  }
  path = tmp_path_factory.mktemp("arrays") / "run"
  arrays = {name: (one.shape[1:], one.dtype.name) for name, one in columns.items()}
  writer = StoreWriter(str(path / workdir.STORE), arrays, N, 64, 64, {"corpus": "numbers"})
  for shard in range(writer.n_shards):
    rows = writer.shard_range(shard)
    writer.write_shard(shard, {k: v[rows.start : rows.stop] for k, v in columns.items()})
  writer.write_documents(documents)
  writer.finish({"layer": 1})
  return path


def _convert(*arguments) -> None:
  assert convert.main([str(argument) for argument in arguments]) == 0


def _contents(path) -> list:
  store = Store(str(path / workdir.STORE))
  columns = [
    store.read(name, slice(None)) for name in ("activations", "position", "norm", "document")
  ]
  documents = [store.documents[i] for i in columns.pop().tolist()]
  said = [(one.id, one.group, one.split, one.source, one.tokens.tobytes()) for one in documents]
  return [(*(v.tobytes() for v in row), one) for *row, one in zip(*columns, said, strict=True)]


@pytest.mark.parametrize("ending", reader.ENDINGS)
def test_a_store_comes_back_bit_for_bit(folder, tmp_path, ending, monkeypatch):
  # Batches that end where shards do not.
  monkeypatch.setattr("nla_jax.interop.array_files.from_store.rows_per_group", lambda d: 47)
  monkeypatch.setattr(to_store, "rows_per_group", lambda d: 64)
  file = tmp_path / f"rows{ending}"
  _convert(folder, file, "--model=random:tiny")
  _convert(file, tmp_path / "back")
  assert _contents(tmp_path / "back") == _contents(folder)
  manifest = Store(str(tmp_path / "back" / workdir.STORE)).manifest
  assert manifest["layer"] == 1 and manifest["converted"]["base_model"] == "random:tiny"
  assert len(manifest["shards"]) == 3

  # The public readers of both formats see the same numbers.
  found = np.load(file) if ending == ".npz" else load_file(file)
  vectors = Store(str(folder / workdir.STORE)).read("activations", slice(None))
  np.testing.assert_array_equal(found["activations"], vectors)
  assert found["offsets"][-1] == len(found["tokens"])


def test_some_rows_bring_their_documents_and_no_others(folder, tmp_path):
  _convert(folder, tmp_path / "some.npz", "--model=random:tiny", "--split=rl", "--rows=3:14")
  _convert(tmp_path / "some.npz", tmp_path / "back")
  store = Store(str(folder / workdir.STORE))
  rows = store.rows("rl")[3:14]
  everything = _contents(folder)
  assert _contents(tmp_path / "back") == [everything[row] for row in rows]
  assert len(Store(str(tmp_path / "back" / workdir.STORE)).documents) == 3
  for split, part, message in (
    ("test", None, "no split 'test'"),
    (None, "three", "expected A:B"),
    (None, "1:2:3", "expected A:B"),
  ):
    with pytest.raises(NLAError, match=message):
      chosen_rows(store, split, part)


def _arrays(**changes) -> dict:
  """A file of the least that is needed: 40 documents of 5 tokens, a row each at the last of them."""
  vectors = np.random.default_rng(1).normal(size=(40, D)).astype(np.float32)
  tokens = np.random.default_rng(2).integers(0, 200, (40, 5))
  metadata = np.array(json.dumps({"model": "random:tiny", "layer": 2}))
  given = {"activations": vectors, "tokens": tokens, "metadata": metadata} | changes
  return {name: value for name, value in given.items() if value is not None}


def test_the_least_that_is_needed_is_split_by_document(tmp_path):
  np.savez_compressed(tmp_path / "least.npz", **_arrays())
  _convert(tmp_path / "least.npz", tmp_path / "store", "--held-out=0.25")
  store = Store(str(tmp_path / "store" / workdir.STORE))
  assert (
    store.read("position", slice(None)).tolist() == [4] * 40 and len(store.rows("held_out")) == 10
  )
  assert set(store.documents.splits) == set(SPLITS)

  # Of two files that both count from 0, in another type; neither says the layer.
  given = _arrays(metadata=None)
  given |= {"activations": given["activations"].astype(np.float16), "lengths": np.full(40, 3)}
  save_file(given, tmp_path / "other.safetensors")
  files = [tmp_path / "other.safetensors", tmp_path / "least.npz"]
  _convert(*files, tmp_path / "two")
  both = Store(str(tmp_path / "two" / workdir.STORE))
  assert len(both) == 80 and both.documents.ids[::40] == ["other:0", "least:0"]
  assert len(both.documents[0].tokens) == 3 and both.manifest["layer"] == 2


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"activations": None}, "no array 'activations'"),
    ({"activations": np.zeros((40, D), np.int32)}, "expected floats"),
    ({"activations": np.zeros(40)}, "expected floats"),
    ({"activations": np.full((40, D), np.nan)}, r"not finite \(row 0\)"),
    ({"activations": np.asfortranarray(np.zeros((40, D)))}, "Fortran order"),
    ({"tokens": None}, "has no documents"),
    ({"tokens": np.zeros((40, 5))}, "expected whole numbers"),
    ({"tokens": np.full((40, 5), -1)}, "ids are at least 0"),
    ({"tokens": np.full((40, 5), 10**6)}, "beyond the model's embedding"),
    ({"tokens": np.full((40, 5), 2**40)}, "beyond 32 bits"),
    ({"tokens": np.zeros((39, 5), int)}, "no array 'document'"),
    ({"lengths": np.full(40, 6)}, "as 'lengths' of row 0"),
    ({"tokens": np.zeros(200, int), "offsets": np.arange(40)}, "do not rise from 0 to the 200"),
    ({"document": np.full(40, 40)}, "as 'document' of row 0; expected 0 to 39"),
    ({"position": np.full(40, 5)}, "as 'position' of row 0; expected 0 to 4"),
    ({"position": np.full(39, 4)}, r"expected whole numbers \[40\]"),
    ({"ids": np.array(["a"] * 40)}, "'a' twice"),
    ({"ids": np.arange(40)}, "expected strings"),
    ({"groups": np.array(["a"] * 3)}, "3 groups and 40 documents"),
    ({"groups": np.array([None] * 40)}, "pickled objects"),
    ({"splits": np.array(["test"] * 40)}, "the split 'test'"),
    ({"splits": np.array(["rl"] + [""] * 39)}, "1 of 40 documents have a split"),
    ({"metadata": np.array("[]")}, "no JSON object"),
    ({"metadata": np.array("{}")}, "of which model"),
    ({"metadata": np.array('{"model": "random:tiny"}')}, "of which layer"),
    ({"metadata": np.array('{"model": "random:tiny", "layer": -1}')}, "number of a block"),
  ],
)
def test_what_does_not_fit_is_one_line(tmp_path, changes, message):
  np.savez(tmp_path / "a.npz", **_arrays(**changes))
  with pytest.raises(NLAError, match=message) as raised:
    _convert(tmp_path / "a.npz", tmp_path / "store")
  assert "\n" not in str(raised.value)


def test_files_that_are_not_whole_or_not_alike_are_one_line(folder, tmp_path):
  np.savez(tmp_path / "a.npz", **_arrays())
  other = json.dumps({"model": "random:tiny", "layer": 3})
  np.savez(tmp_path / "b.npz", **_arrays(metadata=np.array(other)))
  np.savez(tmp_path / "wide.npz", **_arrays(activations=np.ones((40, 2 * D))))
  whole = (tmp_path / "a.npz").read_bytes()
  (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
  (tmp_path / "cut.safetensors").write_bytes(whole[:100])
  store = tmp_path / "store"
  for arguments, message in (
    (("a.npz", "b.npz", store), "one store holds one target's layer"),
    (("a.npz", "wide.npz", store), "several widths"),
    (("a.npz", store, "--layer=5"), "5 is asked for"),
    (("cut.npz", store), "cannot be read as .npz"),
    (("cut.safetensors", store), "not a whole safetensors file"),
    (("a.npz", tmp_path / "c.npz"), "names a file"),
    ((folder, "a.npz", "--model=random:tiny"), "already there"),
    ((folder, "gs://bucket/a.npz"), "in a bucket"),
    ((folder, tmp_path / "c.npz"), "does not say of which model"),
    ((folder, tmp_path / "c.npz", "--model=random:tiny", "--rows=9:9"), "no row"),
  ):
    paths = [
      tmp_path / one if isinstance(one, str) and one[0] in "abcw" else one for one in arguments
    ]
    with pytest.raises(NLAError, match=message) as raised:
      _convert(*paths)
    assert "\n" not in str(raised.value)
  assert not (tmp_path / "store").exists() and not (tmp_path / "c.npz").exists()
