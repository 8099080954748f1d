"""`nla convert`: what goes through a parquet file and back is the same activations, positions, tokens and words."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nla_jax import workdir
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.text import encode
from nla_jax.cli import convert
from nla_jax.data.explanations import read_explanations, write_explanations
from nla_jax.data.positions import split_groups
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.interop.reference_data import to_store
from nla_jax.interop.reference_data.documents import document_tokens, index_rows
from nla_jax.interop.reference_data.reader import DataFile, Rows
from nla_jax.interop.reference_data.sidecar import read_dataset_sidecar, write_dataset_sidecar
from nla_jax.interop.reference_data.writer import DataWriter
from nla_jax.run.claim import claimed

D, LAYER, DOCUMENTS, EACH = 16, 2, 40, 5
SPLITS = ("held_out", "av_sft", "ar_sft", "rl")


@pytest.fixture
def folder(tmp_path):
  """A workdir's data: 200 rows of 40 documents, all explained but those of `rl`."""
  tokenizer, generator = byte_tokenizer(), np.random.default_rng(0)
  documents = [
    StoredDocument(
      f"page {i // 2}#{i % 2}",
      f"page {i // 2}",
      SPLITS[i // 2 % 4],
      np.array(encode(tokenizer, f"Über {i} winters — the {i}th was cold." * 3), np.int32),
    )
    for i in range(DOCUMENTS)
  ]
  n = DOCUMENTS * EACH
  vectors = generator.normal(size=(n, D)).astype(np.float32)
  # The last row of a document is the last token, so that its text gives back the whole document.
  position = np.concatenate(
    [
      np.sort([len(d.tokens) - 1, *generator.choice(len(d.tokens) - 1, EACH - 1, False)])
      for d in documents
    ]
  ).astype(np.int32)
  columns = {
    "activations": vectors,
    "document": np.repeat(np.arange(DOCUMENTS, dtype=np.int32), EACH),
    "position": position,
    "norm": np.linalg.norm(vectors, axis=1),
  }
  path = tmp_path / "run"
  writer = StoreWriter(
    str(path / workdir.STORE),
    {k: (v.shape[1:], v.dtype.name) for k, v in columns.items()},
    n,
    64,
    64,
    {"corpus": "winters"},
  )
  for shard in range(writer.n_shards):
    writer.write_shard(
      shard, {name: column[shard * 64 : (shard + 1) * 64] for name, column in columns.items()}
    )
  writer.write_documents(documents)
  writer.finish({"layer": LAYER})
  rows = np.array([row for row in range(n) if documents[row // EACH].split != "rl"])
  write_explanations(str(path / workdir.TEXTS), rows, [f"a {row}. winter" for row in rows])
  return path


def _contents(path: Path) -> dict:
  """{(document, position): (activation, tokens up to it, split, explanation)}."""
  store = Store(str(path / workdir.STORE))
  texts = read_explanations(str(path / workdir.TEXTS))
  vectors, places = store.read("activations", slice(None)), store.read("position", slice(None))
  np.testing.assert_array_equal(store.read("norm", slice(None)), np.linalg.norm(vectors, axis=1))
  found = {}
  for row, (i, place) in enumerate(
    zip(store.read("document", slice(None)).tolist(), places.tolist())
  ):
    document = store.documents[i]
    found[document.id, place] = (
      vectors[row].tobytes(),
      document.tokens[: place + 1].tolist(),
      document.split,
      texts.get(row),
    )
  assert len(found) == len(store)
  return found


def _convert(*arguments) -> None:
  assert convert.main([str(argument) for argument in arguments]) == 0


def test_a_store_comes_back_through_a_base_file(folder, tmp_path):
  _convert(folder, tmp_path / "base.parquet", "--model=random:tiny")
  side = read_dataset_sidecar(tmp_path / "base.parquet")
  assert (side.row_count, side.base_model, side.corpus, side.layer_index) == (
    200,
    "random:tiny",
    "winters",
    LAYER,
  )
  _convert(folder, tmp_path / "explained.parquet", "--kind=explained", "--model=random:tiny")
  _convert(tmp_path / "explained.parquet", tmp_path / "back")
  expected = {key: value for key, value in _contents(folder).items() if value[3] is not None}
  found = _contents(tmp_path / "back")
  assert list(found) == list(expected)
  for key, (vector, tokens, _, text) in expected.items():
    assert (found[key][0], found[key][1], found[key][3]) == (vector, tokens, text)
  splits = split_groups({name for name, _ in expected})
  assert {name: value[2] for (name, _), value in found.items()} == splits
  assert Store(str(tmp_path / "back" / workdir.STORE)).manifest["layer"] == LAYER


def test_a_folder_that_another_conversion_writes_is_refused(folder, tmp_path):
  _convert(folder, tmp_path / "base.parquet", "--model=random:tiny")
  for target, source in (("back", tmp_path / "base.parquet"), ("files", folder)):
    arguments = [source, tmp_path / target, "--model=random:tiny"]
    with claimed(tmp_path / target), pytest.raises(NLAError, match="is at work in"):
      _convert(*arguments)
    assert not (tmp_path / target / workdir.STORE).exists()
    # Nobody holds it any more.
    _convert(*arguments)
  with pytest.raises(NLAError, match="is a file, and a folder is written"):
    _convert(tmp_path / "base.parquet", Path(__file__))


def test_the_files_of_a_split_keep_it_and_held_out_rows_stay_at_home(folder, tmp_path):
  _convert(folder, tmp_path / "files", "--model=random:tiny")
  files = {path.stem: path for path in (tmp_path / "files").glob("*.parquet")}
  assert set(files) == {"base", "base_explained", "av_sft", "ar_sft", "rl"}
  expected = _contents(folder)
  for split in ("av_sft", "ar_sft", "rl"):
    names = set(pq.read_table(files[split], columns=["doc_id"])["doc_id"].to_pylist())
    assert names == {name for (name, _), value in expected.items() if value[2] == split}
  _convert(
    *(files[split] for split in ("rl", "av_sft", "ar_sft")), tmp_path / "back", "--held-out=0"
  )
  assert _contents(tmp_path / "back") == {
    key: value for key, value in expected.items() if value[2] != "held_out"
  }
  _convert(
    *(files[split] for split in ("av_sft", "ar_sft", "rl")), tmp_path / "cut", "--held-out=0.2"
  )
  cut = _contents(tmp_path / "cut")
  held = {name for (name, _), value in cut.items() if value[2] == "held_out"}
  assert len(held) == 4 and all(value[3] for (name, _), value in cut.items() if name in held)
  assert all(value[2] == expected[key][2] for key, value in cut.items() if key[0] not in held)


def test_files_without_texts_need_the_base_file(folder, tmp_path):
  _convert(folder, tmp_path / "base.parquet", "--model=random:tiny")
  _convert(folder, tmp_path / "av.parquet", "--kind=av_sft", "--model=random:tiny", "--no-texts")
  with pytest.raises(NLAError, match="10 of 10 documents come without their text"):
    _convert(tmp_path / "av.parquet", tmp_path / "back")
  _convert(
    tmp_path / "av.parquet", tmp_path / "back", "--texts", tmp_path / "base.parquet", "--held-out=0"
  )
  assert _contents(tmp_path / "back") == {
    key: value for key, value in _contents(folder).items() if value[2] == "av_sft"
  }


def test_a_stopped_conversion_goes_on(folder, tmp_path, monkeypatch):
  _convert(folder, tmp_path / "explained.parquet", "--kind=explained", "--model=random:tiny")
  monkeypatch.setattr(to_store, "rows_per_group", lambda d: 64)  # three shards
  written = []
  write = StoreWriter.write_shard

  def stops(self, shard, arrays):
    if len(written) == 1:
      raise KeyboardInterrupt
    written.append(shard)
    write(self, shard, arrays)

  monkeypatch.setattr(StoreWriter, "write_shard", stops)
  with pytest.raises(KeyboardInterrupt):
    _convert(tmp_path / "explained.parquet", tmp_path / "back")
  monkeypatch.setattr(
    StoreWriter,
    "write_shard",
    lambda self, shard, arrays: (written.append(shard), write(self, shard, arrays)),
  )
  _convert(tmp_path / "explained.parquet", tmp_path / "back")
  assert written == [0, 1, 2]
  monkeypatch.undo()
  _convert(tmp_path / "explained.parquet", tmp_path / "whole")
  assert _contents(tmp_path / "back") == _contents(tmp_path / "whole")


def test_text_that_tokenises_to_another_length_keeps_positions_and_last_tokens(tokenizer, tmp_path):
  """Cut letter by letter, as a model might have been shown it, the words come back as fewer tokens."""
  words = "a cat sat on the mat while 12 other cats watched"
  n = np.array([10, 30, len(words)])
  rows = Rows(
    ["strange"] * 3 + ["plain"],
    np.append(n, len(encode(tokenizer, words))),
    np.zeros((4, D), np.float32),
    [*(words[:i] for i in n), words],
  )
  with DataWriter(tmp_path / "base.parquet", "base", D, LAYER) as writer:
    writer.write(rows)
    writer.finish(_sidecar())
  file = DataFile(tmp_path / "base.parquet")
  index = index_rows([file])
  tokens, realigned = document_tokens(index, [file], tokenizer)
  assert realigned == 1 and tokens[1].tolist() == encode(tokenizer, words)
  assert index.position.tolist() == [9, 29, len(words) - 1, len(tokens[1]) - 1] and len(
    tokens[0]
  ) == len(words)
  for i in n:
    last = encode(tokenizer, words[:i])
    assert tokens[0][i - len(last[-3:]) : i].tolist() == last[-3:]


def _sidecar():
  from nla_jax.interop.reference_data.sidecar import DatasetSidecar

  return DatasetSidecar(
    dataset_id="test",
    stage="base",
    row_count=0,
    base_model="random:tiny",
    d_model=D,
    layer_index=LAYER,
    corpus="",
  )


def test_files_that_do_not_belong_together_are_refused(folder, tmp_path):
  _convert(folder, tmp_path / "files", "--model=random:tiny")
  base, av = tmp_path / "files" / "base.parquet", tmp_path / "files" / "av_sft.parquet"
  with pytest.raises(NLAError, match="a document belongs to one split"):
    _convert(base, av, tmp_path / "back")
  side = read_dataset_sidecar(av)
  write_dataset_sidecar(av, dataclasses.replace(side, base_model="somebody/else"))
  with pytest.raises(NLAError, match="has base_model 'somebody/else'"):
    _convert(tmp_path / "files" / "rl.parquet", av, tmp_path / "back")
  write_dataset_sidecar(
    av, dataclasses.replace(side, tokens=dataclasses.replace(side.tokens, injection_token_id=7))
  )
  with pytest.raises(NLAError, match="says injection_token_id"):
    _convert(av, tmp_path / "back")
  with pytest.raises(NLAError, match="does not say of which model"):
    _convert(folder, tmp_path / "x.parquet")
  with pytest.raises(NLAError, match="no activation store"):
    _convert(tmp_path / "nothing", tmp_path / "x.parquet")
  with pytest.raises(NLAError, match="already there"):
    _convert(folder, base, "--model=random:tiny")
  assert not (tmp_path / "back").exists()


CONFIG = """
from nla_jax.config import default_config
def get_config():
  c = default_config()
  c.update(model="random:tiny", layer=2, corpus="winters", compute="float32", remat=False, seed=7)
  c.prompts.av = "Explain <concept>{injection_char}</concept>"
  c.av.update(steps=2, batch=4)
  c.ar.update(steps=2, batch=4)
  c.rl.max_new_tokens = 96
  c.data.held_out = 0.2
  return c
"""


def test_with_a_config_the_folder_is_a_workdir_whose_data_stages_are_done(folder, tmp_path):
  from nla_jax.config import load_config
  from nla_jax.run.run import Run

  _convert(folder, tmp_path / "explained.parquet", "--kind=explained", "--model=random:tiny")
  (tmp_path / "c.py").write_text(CONFIG)
  _convert(tmp_path / "explained.parquet", tmp_path / "work", f"--config={tmp_path / 'c.py'}")
  run = Run(load_config(str(tmp_path / "c.py")), tmp_path / "work")
  assert run.open("extract").done and run.open("teach").done
  assert (
    set(run.store.rows("held_out").tolist()) <= set(run.texts)
    and len(run.store.rows("held_out")) == 30
  )
  prompts = make_prompts(run.pretrained.tokenizer, run.config.prompts.av)
  assert prompts.marker_id == run.prompts.marker_id
  (tmp_path / "c.py").write_text(CONFIG.replace("layer=2", "layer=1"))
  with pytest.raises(NLAError, match="is for layer 1"):
    _convert(tmp_path / "explained.parquet", tmp_path / "other", f"--config={tmp_path / 'c.py'}")
