"""GGUF files in parts, of another byte order, or of another form: read, or one line that says what they are."""

import shutil

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.find import find_package_gguf
from nla_jax.interop.base_models.gguf import read_gguf, read_header
from nla_jax.interop.base_models.gguf_tokenizer import tokenizer_from_header
from nla_jax.interop.describe_gguf import describe_gguf

gguf = pytest.importorskip("gguf")

D, FF, BLOCKS = 32, 64, 2
_SHAPES = {
  "token_embd": (300, D),
  "output_norm": (D,),
  "blk.{}.attn_q": (D, D),
  "blk.{}.attn_k": (D // 2, D),
  "blk.{}.attn_v": (D // 2, D),
  "blk.{}.attn_output": (D, D),
  "blk.{}.ffn_gate": (FF, D),
  "blk.{}.ffn_up": (FF, D),
  "blk.{}.ffn_down": (D, FF),
  "blk.{}.attn_norm": (D,),
  "blk.{}.ffn_norm": (D,),
}


def _alphabet():
  """GPT-2's characters for the 256 bytes."""
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in shown]
  return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def _write(path, *, parts=0, big=False, more=(), flags=()):
  """A random llama with byte-level BPE, in one file or in parts of so many tensors."""
  order = gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE
  writer = gguf.GGUFWriter(path, "llama", endianess=order, split_max_tensors=parts)
  writer.add_block_count(BLOCKS)
  writer.add_context_length(256)
  writer.add_embedding_length(D)
  writer.add_feed_forward_length(FF)
  writer.add_head_count(4)
  writer.add_head_count_kv(2)
  writer.add_layer_norm_rms_eps(1e-5)
  tokens = ["<|eot|>", *_alphabet(), "ab", *(f"<unused{i}>" for i in range(42))]
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("gpt-2")
  writer.add_token_list(tokens)
  writer.add_token_types([3] + [1] * (len(tokens) - 1))
  writer.add_token_merges(["a b"])
  writer.add_eos_token_id(0)
  writer.add_chat_template("{{ messages[0].content }}")
  for key in flags:
    writer.add_bool(f"tokenizer.ggml.{key}", True)

  rng = np.random.default_rng(0)
  for name, shape in [*_SHAPES.items(), *more]:
    for block in range(BLOCKS) if "{}" in name else [0]:
      array = rng.standard_normal(shape).astype(np.float32)
      writer.add_tensor(f"{name.format(block)}.weight", array)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


@pytest.fixture
def split(tmp_path):
  _write(tmp_path / "m.gguf", parts=6)
  return sorted(tmp_path.glob("m-*.gguf"))


def test_a_model_in_parts_is_the_model_in_one_file(split, tmp_path):
  assert len(split) > 2
  _write(tmp_path / "whole.gguf")
  whole = read_gguf(tmp_path / "whole.gguf")
  for part in (split[0], split[-1]):
    found = read_gguf(part)
    assert found.architecture == whole.architecture
    for name, array in whole.params["layers"].items():
      np.testing.assert_array_equal(found.params["layers"][name], array)
    np.testing.assert_array_equal(found.params["embedding"], whole.params["embedding"])
  described = describe_gguf(split[1])
  assert described.kind == f"a GGUF file in {len(split)} parts"
  # All that is wrong with this model is its chat template, which writes no answers.
  assert all("chat template" in one for one in described.missing)


def test_a_missing_part_is_named(split):
  split[1].unlink()
  with pytest.raises(NLAError, match=f"{split[1].name} is not beside it .1 missing"):
    read_gguf(split[0])


def test_a_part_without_the_others_names_is_no_damaged_file(split):
  shutil.copy(split[0], split[0].with_name("alone.gguf"))
  with pytest.raises(NLAError, match=f"one of {len(split)} parts, and its name says 1"):
    read_gguf(split[0].with_name("alone.gguf"))


def test_parts_in_a_package_are_found_by_their_first(split, tmp_path, monkeypatch):
  package = tmp_path / "holds_parts"
  package.mkdir()
  for part in split:
    shutil.move(part, package)
  monkeypatch.syspath_prepend(tmp_path)
  assert find_package_gguf("holds_parts").name == split[0].name


def test_another_byte_order_is_told(tmp_path):
  _write(tmp_path / "m.gguf", big=True)
  with pytest.raises(
    NLAError, match="big-endian, little-endian files are read: convert it with gguf-convert-endian"
  ):
    read_gguf(tmp_path / "m.gguf")
  assert "big-endian" in describe_gguf(tmp_path / "m.gguf").missing[0]


@pytest.mark.parametrize(
  "content, said",
  [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "pointer of Git LFS"),
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"tjgg" + bytes(60), "before GGUF"),
    (b"\x02\0\0\0\0\0\0\0{}", "a safetensors file"),
    (b"PK\x03\x04" + bytes(60), "zip archive"),
    (b"GGUF\x09\0\0\0" + bytes(60), "version 9"),
    (b"FUGG\0\0\0\x03" + bytes(60), "big-endian"),
  ],
)
def test_a_file_of_another_form_is_not_called_damaged(tmp_path, content, said):
  (tmp_path / "m.gguf").write_bytes(content)
  with pytest.raises(NLAError, match=said) as error:
    read_gguf(tmp_path / "m.gguf")
  assert "not a whole GGUF" not in str(error.value)


def test_a_string_of_the_header_that_is_no_text_is_named(tmp_path):
  path = tmp_path / "m.gguf"
  _write(path)
  path.write_bytes(path.read_bytes().replace(b"<unused7>", b"\xffunused7>"))
  with pytest.raises(NLAError, match=r"is damaged: 'tokenizer\.ggml\.tokens' of its header"):
    read_gguf(path)


@pytest.mark.parametrize(
  "name", ["blk.{}.attn_sub_norm", "output_extra", "token_embd_norm", "blk.7.attn_q"]
)
def test_a_tensor_that_the_decoder_does_not_have_is_refused(tmp_path, name):
  _write(tmp_path / "m.gguf", more=[(name, (D,))])
  with pytest.raises(NLAError, match="decoder here does not have, the first is"):
    read_gguf(tmp_path / "m.gguf", weights=False)
  _write(tmp_path / "other.gguf", more=[("mm.projector", (D,))])
  assert describe_gguf(tmp_path / "other.gguf").facts["not read"].startswith("1 tensor(s)")


def test_an_appended_eos_is_kept(tmp_path):
  _write(tmp_path / "m.gguf", flags=["add_eos_token"])
  tokenizer = read_gguf(tmp_path / "m.gguf", weights=False).tokenizer
  ids = tokenizer("ab")["input_ids"]
  assert ids == [257, tokenizer.eos_token_id]
  _write(tmp_path / "m.gguf", flags=["add_space_prefix"])
  with pytest.raises(NLAError, match="add_space_prefix is not known"):
    read_gguf(tmp_path / "m.gguf", weights=False)


def test_distilled_qwen_is_cut_as_qwen2_is(tmp_path):
  _write(tmp_path / "m.gguf")
  header = read_header(tmp_path / "m.gguf")
  of = {}
  for pre in ("qwen2", "deepseek-r1-qwen", "gpt-2"):
    backend = tokenizer_from_header(header | {"tokenizer.ggml.pre": pre}).backend_tokenizer
    cut = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("it's 123 \n\n x")]
    of[pre] = cut, str(backend.normalizer)
  assert of["deepseek-r1-qwen"] == of["qwen2"] != of["gpt-2"]
  with pytest.raises(NLAError, match=r"contradicts itself .*`ac` out of vocabulary"):
    tokenizer_from_header(header | {"tokenizer.ggml.merges": ["a c"]})
  with pytest.raises(NLAError, match="names no pre-tokenizer"):
    tokenizer_from_header({k: v for k, v in header.items() if k != "tokenizer.ggml.pre"})
