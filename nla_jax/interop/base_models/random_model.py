"""`random:tiny`: a two-million-multiplication model with random weights and a byte tokenizer, for tests of the path.

It is a real Llama in every respect but what it knows: the pipeline runs on it as on any model, in seconds.
"""

import jax
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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


def byte_tokenizer() -> PreTrainedTokenizerFast:
  """One token a byte, the ChatML specials, and the marker as a token of its own."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  tokenizer = Tokenizer(
    models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[])
  )
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens(
    [AddedToken(token, special=True, normalized=False) for token in _SPECIAL]
  )
  tokenizer.add_tokens([AddedToken(MARKER, normalized=False)])
  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    eos_token=_SPECIAL[1],
    pad_token=_SPECIAL[1],
    chat_template=_CHAT,
    clean_up_tokenization_spaces=False,
  )


def random_model(name: str, stop_layer: int | None = None) -> Pretrained:
  """`random:tiny`: 4 blocks of width 64, weights drawn from a fixed seed."""
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
  params = jax.tree.map(lambda x: np.asarray(x) * 5, init_params(architecture, jax.random.key(0)))
  for norm in ("attention_norm", "mlp_norm"):
    params["layers"][norm] = np.ones_like(params["layers"][norm])
  params["final_norm"] = np.ones_like(params["final_norm"])
  if stop_layer is not None:
    architecture, params = architecture.lower(stop_layer + 1), lower_params(params, stop_layer + 1)
  return Pretrained(
    architecture, params, tokenizer, name, "random:tiny:0", hash_tokenizer(tokenizer)
  )
