"""`nla inspect` says what something is and what it lacks, without reading a weight."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from nla_jax.autoencoder import prompts
from nla_jax.cli.main import main
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.interop.describe import describe, text
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.pairs.write import write_ar, write_av
from nla_jax.interop.reference_data.reader import Rows
from nla_jax.interop.reference_data.sidecar import DatasetSidecar
from nla_jax.interop.reference_data.writer import DataWriter

K = 2


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """A folder with av/ and ar/ of random:tiny."""
  folder, base, lower = (
    tmp_path_factory.mktemp("pair"),
    random_model("random:tiny"),
    random_model("random:tiny", K),
  )
  live = prompts.make_prompts(base.tokenizer)
  side = sidecar.ModelSidecar(
    role="av",
    stage="sl",
    base_checkpoint="somebody/model",
    d_model=64,
    injection_scale=12.5,
    mse_scale=8.0,
    tokens=sidecar.tokens_of(live),
    av_template=live.av_template,
    ar_template=live.ar_template,
    layer_index=K,
  )
  write_av(folder / "av", base.architecture, base.params, base.tokenizer, side)
  write_ar(
    folder / "ar",
    lower.architecture,
    lower.params,
    np.eye(64, dtype=np.float32),
    base.tokenizer,
    dataclasses.replace(side, role="ar"),
  )
  return folder


@pytest.fixture
def broken(pair, tmp_path):
  return Path(shutil.copytree(pair, tmp_path / "pair"))


def test_a_pair_is_described_and_nothing_is_missing(pair):
  found = describe(pair)
  assert found.kind == "an exported pair"
  av, ar = found.parts
  assert (av.kind, ar.kind) == ("an activation verbalizer (AV)", "an activation reconstructor (AR)")
  assert av.missing == ar.missing == []
  assert av.facts["family"] == "llama" and av.facts["base model"] == "somebody/model"
  assert av.facts["injection scale α"] == 12.5 and ar.facts["mse scale"] == 8.0
  assert av.facts["layer"].startswith("2 ") and av.facts["AV template"] == prompts.AV_TEMPLATE
  assert (av.facts["blocks"], ar.facts["blocks"]) == ("4 (0..3)", "3 (0..2)")
  assert ar.facts["value head"].startswith("64 × 64, row norms ")
  assert "nothing is missing" in text(found)


def test_no_weight_is_read_but_an_ars_head(pair, monkeypatch):
  headers, read_header, opened = [], tensor_files.read_header, tensor_files.safe_open

  def only_head(path, *rest):
    assert path.name == "value_head.safetensors", "a weight was read"
    return opened(path, *rest)

  def refuse(*_):
    raise AssertionError("a weight was read")

  monkeypatch.setattr(tensor_files, "safe_open", only_head)
  monkeypatch.setattr(np, "memmap", refuse)
  monkeypatch.setattr(
    tensor_files, "read_header", lambda path: headers.append(path) or read_header(path)
  )
  assert describe(pair / "ar").missing == []
  assert {path.name for path in headers} == {"model.safetensors"}


def _edit(path, change):
  path.write_text(change(path.read_text()))


def _drop_tensor(folder, name):
  tensors = load_file(folder / "model.safetensors")
  save_file(
    {key: value for key, value in tensors.items() if key != name},
    folder / "model.safetensors",
    metadata={"format": "pt"},
  )


@pytest.mark.parametrize(
  ("role", "damage", "words"),
  [
    (
      "ar",
      lambda f: (f / "value_head.safetensors").unlink(),
      "value_head.safetensors, the value head",
    ),
    (
      "ar",
      lambda f: save_file({"weight": np.eye(32, dtype=np.float32)}, f / "value_head.safetensors"),
      "expected [64, 64]",
    ),
    (
      "ar",
      lambda f: _edit(
        f / "config.json", lambda t: t.replace('"num_hidden_layers": 3', '"num_hidden_layers": 2')
      ),
      "has 3 blocks, this one has 2",
    ),
    (
      "av",
      lambda f: _edit(
        f / "config.json", lambda t: t.replace('"num_hidden_layers": 4', '"num_hidden_layers": 2')
      ),
      "the files hold more (model.layers.2.",
    ),
    (
      "av",
      lambda f: _edit(
        f / "config.json", lambda t: t.replace('"num_hidden_layers": 4', '"num_hidden_layers": 5')
      ),
      "9 tensor(s), the first is model.layers.4.",
    ),
    (
      "av",
      lambda f: _edit(
        f / "config.json",
        lambda t: t.replace('"intermediate_size": 128', '"intermediate_size": 96'),
      ),
      "has shape [128, 64]",
    ),
    (
      "av",
      lambda f: _drop_tensor(f, "model.norm.weight"),
      "1 tensor(s), the first is model.norm.weight",
    ),
    ("av", lambda f: (f / "model.safetensors").unlink(), "holds no model*.safetensors"),
    (
      "av",
      lambda f: (f / "model.safetensors").write_bytes(b"half"),
      "is not a whole safetensors file",
    ),
    ("av", lambda f: (f / "config.json").unlink(), "no config.json"),
    ("av", lambda f: (f / "tokenizer.json").unlink(), "no tokenizer could be read"),
    (
      "av",
      lambda f: _edit(
        f / "nla_meta.yaml", lambda t: t.replace("injection_token_id: ", "injection_token_id: 1")
      ),
      "says injection_token_id",
    ),
    (
      "av",
      lambda f: _edit(f / "nla_meta.yaml", lambda t: t.replace("injection_scale: 12.5", "note: 1")),
      "lacks extraction.injection_scale",
    ),
  ],
)
def test_what_is_missing_or_wrong_is_said(broken, role, damage, words):
  damage(broken / role)
  found = describe(broken / role)
  assert any(words in line for line in found.missing), found.missing
  assert f"missing: {found.missing[0]}" in text(found)


def test_a_model_without_a_sidecar_is_no_nla(broken):
  (broken / "av" / "nla_meta.yaml").unlink()
  found = describe(broken / "av")
  assert (
    found.kind.startswith("a Hugging Face model")
    and found.missing == []
    and found.facts["chat template"]
  )


def test_a_store_says_its_counts_or_that_it_was_interrupted(tmp_path):
  store = tmp_path / "store"
  arrays = {"activations": ((8,), "float32"), "document": ((), "int32"), "position": ((), "int32")}
  writer = StoreWriter(str(store), arrays, 40, 16, 16, {"model": "m"})
  part = lambda n: {
    "activations": np.ones((n, 8), np.float32),
    "document": np.zeros(n, np.int32),
    "position": np.zeros(n, np.int32),
  }
  writer.write_shard(0, part(16))
  found = describe(store)
  assert (
    found.kind == "an activation store"
    and found.facts["rows"] == 40
    and found.facts["d_model"] == 8
  )
  assert any("interrupted (1 shards are written" in line for line in found.missing)
  writer.write_shard(1, part(16))
  writer.write_shard(2, part(8))
  writer.write_documents([StoredDocument("a", "a", "held_out", np.zeros(3, np.int32))])
  writer.finish({"layer": 5})
  found = describe(store)
  assert (
    found.missing == []
    and found.facts["rows by split"] == "held_out 40"
    and found.facts["layer"] == 5
  )


def test_a_workdir_says_which_stages_are_done(tmp_path):
  config = {
    "name": "first",
    "preset": "main",
    "model": "random:tiny",
    "layer": 2,
    "corpus": "c",
    "rl": {},
    "teacher": {"provider": "readout"},
  }
  (tmp_path / "config.json").write_text(json.dumps(config))
  for folder, file, value in (
    ("activations", "manifest.json", {"facts": {"rows": 7}, "seconds": 3.2}),
    ("explanations", "request.json", {}),
  ):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).write_text(json.dumps(value))
  found = describe(tmp_path)
  assert (
    found.kind == "a workdir of nla run" and found.facts["stage extract"] == "done in 3 s: rows 7"
  )
  assert found.facts["stage teach"] == "begun" and found.facts["stage rl"] == "not begun"
  assert (
    found.missing[0].startswith("stage teach is unfinished: `nla teach`")
    and len(found.missing) == 5
  )


def test_the_command_prints_and_refuses(pair, tmp_path, capsys):
  assert main(["inspect", str(pair)]) == 0
  assert "an activation reconstructor (AR)" in capsys.readouterr().out
  (tmp_path / "notes.txt").write_text("x")
  for path, words in (
    (tmp_path / "nothing", "there is nothing at"),
    (tmp_path / "notes.txt", "is a .txt file"),
    (tmp_path, "holds no model"),
  ):
    assert main(["inspect", str(path)]) == 2
    assert words in capsys.readouterr().err
    with pytest.raises(NLAError, match=words):
      describe(path)
  (tmp_path / "cut.gguf").write_bytes(b"GGUF")
  assert any("is not a whole GGUF file" in line for line in describe(tmp_path / "cut.gguf").missing)


def test_parquet_files_are_told_apart(tmp_path):
  pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "corpus.parquet")
  found = describe(tmp_path / "corpus.parquet")
  assert (
    found.kind == "a parquet file without activations"
    and found.facts["rows"] == 2
    and found.missing == []
  )
  path = tmp_path / "rl.parquet"
  side = DatasetSidecar(
    dataset_id="x",
    stage="base",
    row_count=3,
    base_model="somebody/model",
    d_model=4,
    layer_index=9,
    corpus="c",
  )
  with DataWriter(path, "base", 4, 9) as writer:
    writer.write(Rows(["a"] * 3, np.arange(1, 4), np.ones((3, 4), np.float32), ["t"] * 3))
    writer.finish(side)
  found = describe(path)
  assert found.kind == "NLA data of stage base" and found.missing == []
  assert (
    found.facts["layer"].startswith("9 ") and found.facts["row groups"] == "1 of at most 3 rows"
  )
  table = pq.read_table(path)
  plain = pa.array([[1.0] * 4] * 3, pa.list_(pa.float32()))
  pq.write_table(table.set_column(2, "activation_vector", plain), path)
  assert any("plain lists overflow past 4 GiB" in line for line in describe(path).missing)
  (tmp_path / "rl.parquet.nla_meta.yaml").unlink()
  found = describe(path)
  assert found.kind == "a parquet file with activations" and any(
    "no sidecar" in line for line in found.missing
  )
