"""A `transformers` tokenizer from the vocabulary and chat template inside a GGUF header.

Two kinds (`tokenizer.ggml.model`) are rebuilt, exactly: byte-level BPE (`gpt2`), here, and Gemma's SentencePiece
BPE (`llama`), in `gguf_sentencepiece`. The header does not say how byte-level BPE cuts text before merging; it only
names the cut, in `tokenizer.ggml.pre`. A name that is not known here is an error, because the wrong cut gives other
tokens without any sign of it.
"""

from typing import Any

from tokenizers import (
  AddedToken,
  Regex,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.gguf_sentencepiece import USER_DEFINED, sentencepiece_bpe

_UNKNOWN, _CONTROL = 2, 3  # tokenizer.ggml.token_type
# DeepSeek's distillations keep Qwen2's tokenizer and rename its special tokens.
_QWEN2 = ("qwen2", "deepseek-r1-qwen")


def _words(digits: str) -> pre_tokenizers.PreTokenizer:
  """The cut into words of Llama 3 and Qwen2, which differ in how many digits may stand together."""
  pattern = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  )
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
  """The cut that a header names. Raises NLAError where the name is not known."""
  gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
  if name == "gpt-2":
    return gpt2
  if name == "smollm":
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
  if name in _QWEN2:
    return _words(r"\p{N}")
  if name in ("llama-bpe", "llama3", "llama-v3"):
    return _words(r"\p{N}{1,3}")

  given = (
    f"GGUF pre-tokenizer {name!r} is not known"
    if name
    else "the GGUF header names no pre-tokenizer"
  )
  raise NLAError(
    f"{given} (gpt-2, smollm, qwen2, deepseek-r1-qwen, llama-bpe are): use the model's Hugging Face directory instead"
  )


def _byte_level_bpe(header: dict[str, Any]) -> tuple[Tokenizer, list[str]]:
  """Returns the tokenizer without its added tokens, and all tokens by id."""
  pre = header.get("tokenizer.ggml.pre", "")
  tokens = header["tokenizer.ggml.tokens"]
  merges = [tuple(merge.split(" ")) for merge in header["tokenizer.ggml.merges"]]
  vocabulary = {token: index for index, token in enumerate(tokens)}

  # Llama 3 takes a word that is a token whole, even where no merges lead to it.
  tokenizer = Tokenizer(
    models.BPE(vocab=vocabulary, merges=merges, ignore_merges=_is_llama3(header))
  )
  tokenizer.pre_tokenizer = _pre_tokenizer(pre)
  tokenizer.decoder = decoders.ByteLevel()

  # No key of the header says it; Qwen2's own tokenizer.json has it.
  if pre in _QWEN2:
    tokenizer.normalizer = normalizers.NFC()
  return tokenizer, tokens


def _is_llama3(header: dict[str, Any]) -> bool:
  return header.get("tokenizer.ggml.pre", "").startswith("llama")


# By tokenizer.ggml.model: the builder, and the keys that it needs.
_KINDS = {
  "gpt2": (_byte_level_bpe, ("tokens", "merges", "token_type")),
  "llama": (sentencepiece_bpe, ("tokens", "scores", "token_type")),
}


def tokenizer_from_header(header: dict[str, Any]):
  """Builds a model's tokenizer.

  Args:
    header: the GGUF's key/value pairs.

  Raises:
    NLAError: the tokenizer is of another kind, a key is missing, or how it cuts text is not known.
  """
  # 1. The vocabulary and the cut.
  kind = header.get("tokenizer.ggml.model")
  if kind not in _KINDS:
    raise NLAError(
      f"GGUF tokenizer model {kind!r} is neither byte-level BPE ('gpt2') nor Gemma's SentencePiece "
      "('llama'): use the model's Hugging Face directory instead"
    )
  build, needed = _KINDS[kind]
  missing = [key for key in needed if f"tokenizer.ggml.{key}" not in header]
  if missing:
    raise NLAError(
      f"GGUF header lacks tokenizer.ggml.{missing[0]}: convert the model again with its tokenizer"
    )
  try:
    tokenizer, tokens = build(header)
  except NLAError:
    raise
  except Exception as error:
    # `tokenizers` has no error of its own: it says so of a merge whose result is no token, and the like.
    reason = " ".join(str(error).split())
    raise NLAError(
      f"the tokenizer in the GGUF header contradicts itself ({reason}): convert the model again"
    ) from error

  # 2. Tokens that are matched before text is cut. Only the special ones disappear when ids are decoded without them.
  types = header["tokenizer.ggml.token_type"]
  tokenizer.add_special_tokens(_added(tokens, types, (_UNKNOWN, _CONTROL), special=True))
  tokenizer.add_tokens(_added(tokens, types, (USER_DEFINED,), special=False))

  # 3. What is put around a text. Headers of Llama 3 do not say that a BOS is.
  bos = _named(header, tokens, "bos")
  adds_bos = bos is not None and header.get("tokenizer.ggml.add_bos_token", _is_llama3(header))
  _put_around(tokenizer, tokens, bos if adds_bos else None, _appended(header, tokens))

  special = {
    # A BOS that is never emitted (SmolLM2 names <|im_start|>) makes other readers refuse an exported AR.
    "bos_token": bos if adds_bos else None,
    "eos_token": _named(header, tokens, "eos"),
    "unk_token": _named(header, tokens, "unknown"),
    "pad_token": _named(header, tokens, "padding") or _named(header, tokens, "eos"),
  }
  # A second to import, and `nla` quietens it first.
  from transformers import PreTrainedTokenizerFast

  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    **{name: token for name, token in special.items() if token is not None},
    chat_template=header.get("tokenizer.chat_template"),
    clean_up_tokenization_spaces=False,
  )


def _appended(header: dict[str, Any], tokens: list[str]) -> str | None:
  """The EOS where the header says that it follows every text. Raises NLAError where it asks for more than that."""
  for key in ("add_sep_token", "add_space_prefix"):
    # Gemma's builder has looked at the second itself.
    if header.get(f"tokenizer.ggml.{key}") and header["tokenizer.ggml.model"] == "gpt2":
      raise NLAError(
        f"GGUF byte-level tokenizer with {key} is not known: use the model's Hugging Face directory instead"
      )
  if not header.get("tokenizer.ggml.add_eos_token"):
    return None

  eos = _named(header, tokens, "eos")
  if eos is None:
    raise NLAError(
      "the GGUF header says add_eos_token and names no EOS: convert the model again with its tokenizer"
    )
  return eos


def _put_around(tokenizer: Tokenizer, tokens: list[str], bos: str | None, eos: str | None) -> None:
  """Puts a BOS before and an EOS after every text, where there are such."""
  special = [(token, tokens.index(token)) for token in dict.fromkeys(filter(None, (bos, eos)))]
  if special:
    single, second = (" ".join(filter(None, (bos, text, eos))) for text in ("$A", "$B"))
    tokenizer.post_processor = processors.TemplateProcessing(
      single=single, pair=f"{single} {second}", special_tokens=special
    )


def _added(
  tokens: list[str], types: list[int], kinds: tuple[int, ...], *, special: bool
) -> list[AddedToken]:
  """The tokens of some kinds, in the order of their ids."""
  return [
    AddedToken(token, special=special, normalized=False)
    for token, kind in zip(tokens, types, strict=True)
    if kind in kinds
  ]


def _named(header: dict[str, Any], tokens: list[str], key: str) -> str | None:
  """The token whose id stands under a key of the header; None where there is none."""
  index = header.get(f"tokenizer.ggml.{key}_token_id")
  return tokens[index] if index is not None and index < len(tokens) else None


def end_ids(header: dict[str, Any]) -> tuple[int, ...]:
  """The ids that end an answer by a GGUF's header: EOS, end of turn, end of message."""
  found = (header.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
  return tuple(dict.fromkeys(int(token) for token in found if token is not None))
