"""Shapes of models that plans are made for where the models themselves are not at hand, by hub id.

As their `config.json` gives them; a model in the hub's cache or in a folder is read from there instead.
"""

from nla_jax.models.architectures import Architecture, RopeScaling

_LLAMA3 = RopeScaling(kind="llama3", factor=8.0)


def _gemma3(
  n_layers: int,
  d_model: int,
  n_heads: int,
  n_kv_heads: int,
  head_dim: int,
  d_ff: int,
  query_scale: float,
) -> Architecture:
  # Every sixth layer attends to everything, the others to a window of 1024 tokens.
  return Architecture(
    family="gemma3_text",
    vocab_size=262208,
    d_model=d_model,
    n_layers=n_layers,
    n_heads=n_heads,
    n_kv_heads=n_kv_heads,
    head_dim=head_dim,
    d_ff=d_ff,
    rope_theta=1e6,
    rms_eps=1e-6,
    max_positions=131072,
    tied=True,
    qk_norm=True,
    activation="gelu_tanh",
    norm_offset=1.0,
    embedding_scale=d_model**0.5,
    sandwich_norm=True,
    query_scale=query_scale,
    rope_scaling=RopeScaling(kind="linear", factor=8.0),
    rope_theta_local=1e4,
    windows=tuple(0 if (layer + 1) % 6 == 0 else 1024 for layer in range(n_layers)),
  )


def _qwen2(
  n_layers: int, d_model: int, n_heads: int, n_kv_heads: int, d_ff: int, vocab_size: int, tied: bool
) -> Architecture:
  return Architecture(
    family="qwen2",
    vocab_size=vocab_size,
    d_model=d_model,
    n_layers=n_layers,
    n_heads=n_heads,
    n_kv_heads=n_kv_heads,
    head_dim=d_model // n_heads,
    d_ff=d_ff,
    rope_theta=1e6,
    rms_eps=1e-6,
    max_positions=32768,
    tied=tied,
    attention_bias=True,
  )


ARCHITECTURES = {
  "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(24, 896, 14, 2, 4864, 151936, tied=True),
  "Qwen/Qwen2.5-7B-Instruct": _qwen2(28, 3584, 28, 4, 18944, 152064, tied=False),
  "google/gemma-3-12b-it": _gemma3(48, 3840, 16, 8, 256, 15360, 256**-0.5),
  "google/gemma-3-27b-it": _gemma3(62, 5376, 32, 16, 128, 21504, 168**-0.5),
  "meta-llama/Llama-3.3-70B-Instruct": Architecture(
    family="llama",
    vocab_size=128256,
    d_model=8192,
    n_layers=80,
    n_heads=64,
    n_kv_heads=8,
    head_dim=128,
    d_ff=28672,
    rope_theta=5e5,
    rms_eps=1e-5,
    max_positions=131072,
    tied=False,
    rope_scaling=_LLAMA3,
  ),
}
