"""`random:tiny`: a tiny Llama with random weights and a byte tokenizer, which tests run the whole pipeline on.

It is a real Llama in every respect but what it knows. The pipeline runs on it as on any model, in seconds.
"""

import jax
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.record import Pretrained, hash_tokenizer
from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import init_params, lower_params

MARKER = "㈎"
_SPECIAL = ("<|im_start|>", "<|im_end|>")
_CHAT = (
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer():
  """Builds a tokenizer with a token for each byte, the ChatML specials, and the marker as a token of its own."""
  # Without merges a text has a token for each of its bytes, apart from the specials and the marker.
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocabulary = {symbol: i for i, symbol in enumerate(alphabet)}
  tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  tokenizer.decoder = decoders.ByteLevel()

  tokenizer.add_special_tokens(
    [AddedToken(token, special=True, normalized=False) for token in _SPECIAL]
  )
  tokenizer.add_tokens([AddedToken(MARKER, normalized=False)])

  from transformers import (
    PreTrainedTokenizerFast,
  )  # a second to import, and `nla` quietens it first

  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    eos_token=_SPECIAL[1],
    pad_token=_SPECIAL[1],
    chat_template=_CHAT,
    clean_up_tokenization_spaces=False,
  )


def random_model(name: str, stop_layer: int | None = None) -> Pretrained:
  """Builds `random:tiny`: 4 blocks of width 64, its weights drawn from a fixed seed.

  Args:
    name: `random:tiny`.
    stop_layer: K, 0-based; only blocks 0..K are kept, without final norm and unembedding.

  Raises:
    NLAError: another name.
  """
  if name != "random:tiny":
    raise NLAError(f"config.model={name!r}: the only random model is random:tiny")

  tokenizer = byte_tokenizer()
  architecture = Architecture(
    family="llama",
    vocab_size=len(tokenizer),
    d_model=64,
    n_layers=4,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    d_ff=128,
    rope_theta=10000.0,
    rms_eps=1e-5,
    max_positions=2048,
    tied=True,
  )

  # Weights five times those of a fresh model, large enough for an injected vector to matter; the norms stay at 1.
  params = jax.tree.map(lambda x: np.asarray(x) * 5, init_params(architecture, jax.random.key(0)))
  for norm in ("attention_norm", "mlp_norm"):
    params["layers"][norm] = np.ones_like(params["layers"][norm])
  params["final_norm"] = np.ones_like(params["final_norm"])

  if stop_layer is not None:
    architecture, params = architecture.lower(stop_layer + 1), lower_params(params, stop_layer + 1)
  return Pretrained(
    architecture, params, tokenizer, name, "random:tiny:0", hash_tokenizer(tokenizer)
  )
