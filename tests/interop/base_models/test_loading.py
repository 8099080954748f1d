"""Weights go from safetensors to their place on a mesh: the right ones, no more than is needed, or one clear line."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, parameter_names, tensor_files
from nla_jax.interop.base_models.find import download
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.parallel import placement

ROOT = Path(__file__).parents[3]
BENCHMARK = ROOT / "benchmarks" / "loading.py"
PROGRAM = ROOT / "tests" / "support" / "interop" / "loading_process.py"


@pytest.fixture(scope="module")
def loading():
  """The benchmark's module: it writes checkpoints and measures a load in a process of its own."""
  spec = importlib.util.spec_from_file_location("loading", BENCHMARK)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="module")
def small(loading):
  """Qwen2 of four blocks; every dimension can be cut in four but the key's two heads."""
  return loading.qwen2(4, d_model=64, d_ff=96, n_heads=4, n_kv_heads=2, vocab_size=400)


@pytest.fixture
def checkpoint(loading, small, tmp_path):
  """Its directory, in several bfloat16 shards, with a tokenizer."""
  loading.write_checkpoint(tmp_path, small, shard_bytes=100_000)
  byte_tokenizer().save_pretrained(tmp_path)
  return tmp_path


def _shard(directory, tensor):
  return directory / tensor_files.read_index(directory / tensor_files.INDEX)[tensor]


def _edit(path, name, value):
  """Writes bfloat16 `value` over the third number of a tensor, in place."""
  entry = tensor_files.read_header(path)[name]
  with open(path, "r+b") as file:
    file.seek(entry.start + 4)
    file.write(np.array(value, ml_dtypes.bfloat16).tobytes())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_device_of_a_mesh_holds_its_piece(loading, checkpoint, dtype):
  found = loading.load_in_a_process(checkpoint, shape=(2, 2, 2), dtype=dtype, compare=True)
  assert found["equal"]


def _load_in_two_processes(*checkpoints):
  """What each of them says of each checkpoint."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  running = [
    subprocess.Popen(
      [sys.executable, str(PROGRAM), address, "2", str(i), *map(str, checkpoints)],
      text=True,
      stdout=subprocess.PIPE,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    for i in range(2)
  ]
  printed = [process.communicate()[0].splitlines()[-len(checkpoints) :] for process in running]
  return zip(*([json.loads(line) for line in lines] for lines in printed), strict=True)


def test_each_of_two_processes_takes_its_half_of_the_bytes_and_both_refuse_a_nan_that_one_reads(
  checkpoint, small, tmp_path_factory
):
  total = sum(
    leaf.size * 2 for leaf in jax.tree.leaves(parameter_names.abstract_tree(small, headless=False))
  )
  damaged = shutil.copytree(checkpoint, tmp_path_factory.mktemp("damaged") / "model")
  name = "model.layers.2.mlp.gate_proj.weight"
  _edit(_shard(damaged, name), name, np.nan)
  whole, refused = _load_in_two_processes(checkpoint, damaged)
  for found in whole:
    assert (
      found["equal"] and total / 2 <= found["taken"] < 0.52 * total
    )  # norms and biases are whole in both
  for found in refused:
    assert f"{name} holds NaN or infinity" in found["error"]


def test_one_device_gets_the_same_weights_in_the_dtype_asked_for(checkpoint, small):
  whole = huggingface.read_params(checkpoint, small)
  half = huggingface.read_params(checkpoint, small, dtype="bfloat16")
  for full, rounded in zip(jax.tree.leaves(whole), jax.tree.leaves(half), strict=True):
    assert full.dtype == np.float32 and rounded.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(full), np.asarray(rounded, np.float32))
  name = "model.layers.3.self_attn.o_proj.weight"
  with safe_open(_shard(checkpoint, name), "np") as file:
    expected = file.get_tensor(name).T.reshape(4, 16, 64)
  np.testing.assert_array_equal(np.asarray(half["layers"]["output"][3]), expected)


def test_nothing_above_the_layer_is_read_and_its_files_may_be_absent(
  checkpoint, small, monkeypatch
):
  index = tensor_files.read_index(checkpoint / tensor_files.INDEX)
  needed = huggingface.shards_up_to(index, 1, checkpoint)
  whole = huggingface.read_params(checkpoint, small)
  for shard in set(index.values()) - set(needed):
    (checkpoint / shard).unlink()
  read, view, sample = set(), tensor_files.TensorFiles.view, tensor_files.TensorFiles.sample
  monkeypatch.setattr(
    tensor_files.TensorFiles, "view", lambda self, name: read.add(name) or view(self, name)
  )
  monkeypatch.setattr(
    tensor_files.TensorFiles, "sample", lambda self, name: read.add(name) or sample(self, name)
  )
  cut = load_pretrained(str(checkpoint), stop_layer=1)
  assert len(needed) < len(set(index.values())) and set(cut.params) == {"embedding", "layers"}
  assert {
    int(re.search(r"layers\.(\d+)", name)[1]) for name in read - {"model.embed_tokens.weight"}
  } == {0, 1}
  assert not {"lm_head.weight", "model.norm.weight"} & read
  for name, leaf in cut.params["layers"].items():
    np.testing.assert_array_equal(leaf, whole["layers"][name][:2])
  with pytest.raises(NLAError, match="lacks the shard"):
    load_pretrained(str(checkpoint), stop_layer=3)


def _resident(path):
  """Bytes of a file that are mapped into this process's memory."""
  maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
  return sum(
    1024 * int(re.search(r"Rss:\s+(\d+)", one)[1])
    for one in maps
    if one.split("\n")[0].endswith(str(path))
  )


def test_a_tensor_is_read_only_where_something_is_taken_from_it(tmp_path):
  path, rows = tmp_path / "model.safetensors", np.ones((4096, 4096), np.float32)
  tensor_files.write_file(path, {"x": rows}, dtype="bfloat16")  # 32 MiB
  view = tensor_files.TensorFiles(tmp_path).view("x")
  assert _resident(path) == 0
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  jax.block_until_ready(
    placement.copy_to_devices(view.T[:, 1024:1536], device, "bfloat16")
  )  # an eighth of the file's rows
  assert (
    4 * 2**20 <= _resident(path) <= 8 * 2**20
  )  # the kernel maps whole pages, of up to 2 MiB, at either end


def test_a_model_is_known_by_its_weights(checkpoint, small):
  known = load_pretrained(str(checkpoint), weights=False)
  assert known.params is None and known.architecture == small
  assert known.model_hash == load_pretrained(str(checkpoint)).model_hash
  name = "model.layers.2.mlp.down_proj.weight"
  below = load_pretrained(str(checkpoint), stop_layer=1, weights=False).model_hash
  _edit(_shard(checkpoint, name), name, 3.0)
  assert load_pretrained(str(checkpoint), weights=False).model_hash != known.model_hash
  assert load_pretrained(str(checkpoint), stop_layer=1, weights=False).model_hash == below


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
  "name",
  ["model.layers.2.self_attn.k_proj.weight", "model.embed_tokens.weight", "model.norm.weight"],
)
def test_a_weight_that_is_no_number_is_named(checkpoint, small, name, value):
  _edit(_shard(checkpoint, name), name, value)
  for dtype in ("float32", "bfloat16"):
    with pytest.raises(NLAError, match=re.escape(f"{name} holds NaN or infinity")):
      huggingface.read_params(checkpoint, small, dtype=dtype)


def _cut(path):
  path.write_bytes(path.read_bytes()[:-1000])


def _cut_in_header(path):
  path.write_bytes(path.read_bytes()[:100])


def _empty(path):
  path.write_bytes(b"")


def _remove(path):
  path.unlink()


def _remove_with_index(path):
  path.unlink()
  (path.parent / tensor_files.INDEX).unlink()


def _break_off(path):
  partial = path.parent / ".cache" / "huggingface" / "download"
  partial.mkdir(parents=True)
  path.rename(partial / f"{path.name}.abc.incomplete")


def _only_pickles(path):
  for file in path.parent.glob("model*.safetensors*"):
    file.unlink()
  (path.parent / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80\x04.")


def _wrong_index(path):
  (path.parent / tensor_files.INDEX).write_text("{}")


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_cut, "is not a whole safetensors file ({cut} bytes, its header says {size}): fetch it again"),
    (_cut_in_header, "is not a whole safetensors file (100 bytes, cut off in its header)"),
    (_empty, "is not a whole safetensors file (0 bytes, cut off in its header)"),
    (_remove, "lacks the shard {name}"),
    (_remove_with_index, "lacks the shard {name}"),
    (
      _break_off,
      "(1 missing): fetch it (a download was broken off here: the same download again goes on from there)",
    ),
    (
      _only_pickles,
      "holds only torch pickles (pytorch_model-00001-of-00002.bin), which can run code when loaded",
    ),
    (_wrong_index, "is no index of safetensors shards"),
  ],
)
def test_a_broken_download_is_one_line_before_a_weight_is_read(
  checkpoint, damage, message, monkeypatch
):
  path = sorted(checkpoint.glob("model-00002*"))[0]
  size = path.stat().st_size
  damage(path)
  monkeypatch.setattr(tensor_files.TensorFiles, "view", None)
  with pytest.raises(
    NLAError, match=re.escape(message.format(name=path.name, size=size, cut=size - 1000))
  ) as error:
    load_pretrained(str(checkpoint))
  assert "\n" not in str(error.value)


def test_another_models_config_is_refused_before_a_weight_is_read(
  checkpoint, edit_config, monkeypatch
):
  monkeypatch.setattr(tensor_files.TensorFiles, "view", None)
  for changes, message in (
    ({"intermediate_size": 128}, "config.json asks for a float of [128, 64]"),
    ({"vocab_size": 401}, "config.json asks for a float of [401, 64]"),
    ({"num_hidden_layers": 5}, "says 5 layers, the safetensors hold 4"),
    ({"model_type": "qwen3"}, "lacks the tensor model.layers.0.self_attn.q_norm.weight"),
  ):
    before = (checkpoint / "config.json").read_text()
    edit_config(checkpoint, **changes)
    with pytest.raises(NLAError, match=re.escape(message)):
      load_pretrained(str(checkpoint), weights=False)
    (checkpoint / "config.json").write_text(before)
  edit_config(checkpoint, model_type="mamba")
  with pytest.raises(NLAError, match=r"model_type 'mamba'; supported are .* or add the family"):
    load_pretrained(str(checkpoint))


@pytest.fixture
def cached(checkpoint, tmp_path_factory, monkeypatch):
  """The checkpoint as the hub's client keeps it, in a cache of its own; returns the snapshot's folder."""
  cache = tmp_path_factory.mktemp("hub")
  repository, revision = cache / "models--some--model", "0123456789abcdef0123456789abcdef01234567"
  (repository / "refs").mkdir(parents=True)
  (repository / "refs" / "main").write_text(revision)
  (repository / "snapshots").mkdir()
  (repository / "blobs").mkdir()
  snapshot = checkpoint.rename(repository / "snapshots" / revision)
  for file in list(snapshot.iterdir()):
    blob = file.rename(repository / "blobs" / file.name)
    file.symlink_to(os.path.relpath(blob, snapshot))
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
  return snapshot


def test_offline_a_cached_model_is_found_and_another_is_one_line(cached, small):
  assert load_pretrained("some/model").architecture == small
  with pytest.raises(
    NLAError, match=r"not in the hub's cache, and HF_HUB_OFFLINE is set: .* `hf download no/model`"
  ):
    download("no/model")


def test_offline_the_shards_up_to_the_layer_are_enough(cached):
  index = tensor_files.read_index(cached / tensor_files.INDEX)
  for shard in set(index.values()) - set(huggingface.shards_up_to(index, 0, cached)):
    (cached / shard).unlink()
  assert load_pretrained("some/model", stop_layer=0).architecture.n_layers == 1
  (cached.parent.parent / "blobs" / "0123.incomplete").touch()
  with pytest.raises(NLAError, match=r"lacks the shard .*a download was broken off here"):
    load_pretrained("some/model")


@pytest.mark.slow
@pytest.mark.long
def test_two_gigabytes_load_in_the_memory_that_they_need(loading, tmp_path):
  """Peak of resident memory over what was resident before, mapped pages included, by the kernel's own mark."""
  architecture = loading.qwen2(
    24, d_model=1024, d_ff=8192, n_heads=16, n_kv_heads=4, vocab_size=152064
  )
  loading.write_checkpoint(tmp_path, architecture, shard_bytes=500_000_000)
  runtime = 150_000_000  # compiled programs and the runtime's own buffers
  index = tensor_files.read_index(tmp_path / tensor_files.INDEX)
  for stop_layer, held in ((None, 1.9e9), (11, 0.9e9)):
    if stop_layer is not None:
      for shard in set(index.values()) - set(huggingface.shards_up_to(index, stop_layer, tmp_path)):
        (tmp_path / shard).unlink()
    found = loading.load_in_a_process(
      tmp_path, dtype="bfloat16", stop_layer=stop_layer, compare=True
    )
    assert found["equal"] and found["held"] > held
    assert found["peak"] < found["held"] + found["largest"] + runtime
    assert found["peak_anonymous"] < found["held"] + found["largest"] + runtime
