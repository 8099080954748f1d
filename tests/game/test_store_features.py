"""The SAE of the game names an activation by the contexts of the base that switch on what it switches on."""

from types import SimpleNamespace

import numpy as np
import pytest

from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.game.store_features import StoreFeatures, open_store
from nla_jax.interop.base_models.load import load_pretrained

D, ROWS, LAYER = 16, 1200, 3
# One direction in fourteen is rare enough to tell something.
THINGS = "river stone bird iron cloud horse lamp bell ship rope mill well door hill"
WORDS = [f"it was a {one}" for one in THINGS.split(" ")]


@pytest.fixture(scope="module")
def nla():
  tokenizer = load_pretrained("random:tiny", weights=False).tokenizer
  verbalizer = SimpleNamespace(architecture=SimpleNamespace(d_model=D))
  return SimpleNamespace(
    pair=SimpleNamespace(layer=LAYER, verbalizer=verbalizer, tokenizer=tokenizer)
  )


def _direction(kind: int) -> np.ndarray:
  return np.eye(D, dtype=np.float32)[kind] * 3


def _written(folder, tokenizer, rows=ROWS, layer=LAYER) -> str:
  """A store whose activations point where the words of their document say."""
  documents = [
    StoredDocument(str(i), str(i), "rl", np.asarray(tokenizer.encode(words), np.int32))
    for i, words in enumerate(WORDS)
  ]
  document = np.arange(rows, dtype=np.int32) % len(WORDS)
  noise = np.random.default_rng(0).normal(0, 0.05, (rows, D)).astype(np.float32)
  columns = {
    "activations": np.stack([_direction(kind) for kind in document]) + noise,
    "document": document,
    "position": np.asarray([len(documents[i].tokens) - 1 for i in document], np.int32),
  }
  arrays = {
    "activations": ((D,), "float32"),
    "document": ((), "int32"),
    "position": ((), "int32"),
  }
  writer = StoreWriter(str(folder), arrays, rows, 400, 400, {"corpus": "words"})
  writer.write_documents(documents)
  for shard in range(writer.n_shards):
    here = writer.shard_range(shard)
    writer.write_shard(shard, {name: one[here.start : here.stop] for name, one in columns.items()})
  writer.finish({"layer": layer})
  return str(folder)


def test_an_activation_is_named_by_the_contexts_that_are_like_it(nla, tmp_path):
  store = open_store(_written(tmp_path / "store", nla.pair.tokenizer))
  found = StoreFeatures(store, nla, tmp_path)
  labels = found.labels(np.stack([_direction(kind) for kind in range(len(WORDS))]))
  first = [label.split(" / ")[0].split("\n")[0] for label in labels]
  right = sum(words.split()[-1] in label for words, label in zip(WORDS, first, strict=True))
  assert right >= 0.8 * len(WORDS), first

  # Trained once: the file is read the second time.
  again = StoreFeatures(store, nla, tmp_path)
  np.testing.assert_array_equal(again._sae.w_dec, found._sae.w_dec)


@pytest.mark.parametrize(
  ("rows", "layer", "message"),
  [(200, LAYER, "needs 1000 at least"), (ROWS, LAYER + 1, "of block 4")],
)
def test_a_store_that_does_not_fit_is_one_line(nla, tmp_path, rows, layer, message):
  store = open_store(_written(tmp_path / "store", nla.pair.tokenizer, rows, layer))
  with pytest.raises(NLAError, match=message):
    StoreFeatures(store, nla, tmp_path)
