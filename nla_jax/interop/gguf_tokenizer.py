"""A `transformers` tokenizer from the vocabulary, merges and chat template inside a GGUF header.

Only byte-level BPE (`tokenizer.ggml.model: gpt2`) is rebuilt: it is exact. How text is cut before merging is
not in the header but behind a name, `tokenizer.ggml.pre`; a name that is not known here is an error, because
the wrong cut gives other tokens without any sign of it.
"""
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from nla_jax.errors import NLAError

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # tokenizer.ggml.token_type


def _words(digits: str) -> pre_tokenizers.PreTokenizer:
  """The cut of Llama 3 and Qwen2, which differ in how many digits may stand together."""
  pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits
             + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
  return pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
  ])


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
  gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
  if name == "gpt-2":
    return gpt2
  if name == "smollm":
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
  if name == "qwen2":
    return _words(r"\p{N}")
  if name in ("llama-bpe", "llama3", "llama-v3"):
    return _words(r"\p{N}{1,3}")
  raise NLAError(f"GGUF pre-tokenizer {name!r} is not known (gpt-2, smollm, qwen2, llama-bpe are): use the "
                 "model's Hugging Face directory instead")


def tokenizer_from_header(header: dict[str, Any]) -> PreTrainedTokenizerFast:
  """Builds the tokenizer.

  Args:
    header: the GGUF's key/value pairs.

  Raises:
    NLAError: the vocabulary is no byte-level BPE, a key is missing, or the pre-tokenizer is not known.
  """
  kind = header.get("tokenizer.ggml.model")
  if kind != "gpt2":
    raise NLAError(f"GGUF tokenizer model {kind!r} is not byte-level BPE ('gpt2'): use the model's Hugging "
                   "Face directory instead")
  missing = [key for key in ("tokens", "merges", "token_type") if f"tokenizer.ggml.{key}" not in header]
  if missing:
    raise NLAError(f"GGUF header lacks tokenizer.ggml.{missing[0]}: convert the model again with its "
                   "tokenizer")
  tokens = header["tokenizer.ggml.tokens"]
  types = header["tokenizer.ggml.token_type"]
  pre = header.get("tokenizer.ggml.pre", "")

  merges = [tuple(merge.split(" ")) for merge in header["tokenizer.ggml.merges"]]
  vocabulary = {token: index for index, token in enumerate(tokens)}
  llama3 = pre.startswith("llama")
  tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=llama3))
  tokenizer.pre_tokenizer = _pre_tokenizer(pre)
  tokenizer.decoder = decoders.ByteLevel()
  if pre == "qwen2":
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.add_special_tokens([
    AddedToken(token, special=True, normalized=False)
    for token, kind in zip(tokens, types, strict=True) if kind in (_UNKNOWN, _CONTROL)
  ])
  tokenizer.add_tokens([
    AddedToken(token, special=False, normalized=False)
    for token, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED
  ])

  def named(key: str) -> str | None:
    index = header.get(f"tokenizer.ggml.{key}_token_id")
    return tokens[index] if index is not None and index < len(tokens) else None

  bos = named("bos")
  adds_bos = bool(header.get("tokenizer.ggml.add_bos_token", llama3)) and bos is not None
  if adds_bos:
    tokenizer.post_processor = processors.TemplateProcessing(
      single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])])
  special = {
    # A BOS that is never emitted (SmolLM2 names <|im_start|>) makes other readers of an exported AR refuse
    # it.
    "bos_token": bos if adds_bos else None,
    "eos_token": named("eos"),
    "unk_token": named("unknown"),
    "pad_token": named("padding") or named("eos"),
  }
  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    **{name: token for name, token in special.items() if token is not None},
    chat_template=header.get("tokenizer.chat_template"),
    clean_up_tokenization_spaces=False,
  )
