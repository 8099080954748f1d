"""A model family is a set of values, not a class: everything in which decoders differ stands here.

`Architecture` is frozen and hashable, so it can be a static argument of a jitted function. The two-way tables
between these values and a Hugging Face `config.json` (and a GGUF header) live in `nla_jax.interop`.
"""

import dataclasses
import math

from nla_jax.errors import NLAError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """Llama 3's frequency scaling (`rope_type: llama3`) or plain division (`linear`).

  Attributes:
    kind: `llama3` or `linear`.
    factor: wavelengths above the low-frequency bound are stretched by this.
    low_freq_factor: only `llama3`.
    high_freq_factor: only `llama3`.
    original_max_positions: only `llama3`; the context length before scaling.

  Raises:
    NLAError: a number by which no frequency can be divided, or bounds in the wrong order.
  """

  kind: str
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_max_positions: int = 8192

  def __post_init__(self):
    # A factor of 0 makes every position infinite and one below it turns them round, without a word.
    if not (math.isfinite(self.factor) and self.factor > 0):
      raise NLAError(
        f"the model's files ask for {self.kind} rope scaling by the factor {self.factor:g}: expected a number above 0, "
        "take the files from the model's own repository"
      )
    if not 0 < self.low_freq_factor < self.high_freq_factor or self.original_max_positions < 1:
      raise NLAError(
        f"the model's files ask for {self.kind} rope scaling between {self.low_freq_factor:g} and "
        f"{self.high_freq_factor:g} of {self.original_max_positions} positions: expected 0 < low < high, take the "
        "files from the model's own repository"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """A decoder-only transformer: Llama, Qwen2, Qwen3, Gemma 3 (text), SmolLM2.

  Attributes:
    family: Hugging Face `model_type` (`llama`, `qwen2`, `qwen3`, `gemma3_text`).
    vocab_size: rows of the embedding.
    d_model: width of the residual stream.
    n_layers: number of blocks, ≥ 1.
    n_heads: query heads.
    n_kv_heads: key/value heads; divides `n_heads`.
    head_dim: width of one head (not always `d_model / n_heads`).
    d_ff: hidden width of the gated MLP.
    rope_theta: base of the rotary frequencies (of global layers where layers differ).
    rms_eps: epsilon of every RMSNorm.
    max_positions: longest context the model was made for, in tokens.
    tied: the unembedding is the embedding.
    attention_bias: query, key and value projections have biases (Qwen2).
    qk_norm: RMSNorm over each head's query and key before rotation (Qwen3, Gemma 3).
    activation: `silu` or `gelu_tanh`.
    norm_offset: 1.0 where the norm multiplies by `1 + w` (Gemma), else 0.0.
    embedding_scale: factor on token embeddings (√d_model for Gemma), else 1.0.
    sandwich_norm: a norm after attention and after the MLP as well (Gemma 3).
    query_scale: factor on the attention scores; None means `head_dim ** -0.5`.
    rope_scaling: scaling of the (global) rotary frequencies, or None.
    rope_theta_local: rotary base of sliding-window layers; None where all layers are alike.
    windows: per layer, the sliding window in tokens, 0 for full attention; None where all attend fully.
  """

  family: str
  vocab_size: int
  d_model: int
  n_layers: int
  n_heads: int
  n_kv_heads: int
  head_dim: int
  d_ff: int
  rope_theta: float
  rms_eps: float
  max_positions: int
  tied: bool
  attention_bias: bool = False
  qk_norm: bool = False
  activation: str = "silu"
  norm_offset: float = 0.0
  embedding_scale: float = 1.0
  sandwich_norm: bool = False
  query_scale: float | None = None
  rope_scaling: RopeScaling | None = None
  rope_theta_local: float | None = None
  windows: tuple[int, ...] | None = None

  @property
  def matrices(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """{name: (axes that a product sums over, axes of its result)} of a block's matrices."""
    d, ff, queries = (self.d_model,), (self.d_ff,), (self.n_heads, self.head_dim)
    keys = (self.n_kv_heads, self.head_dim)
    return {
      "query": (d, queries),
      "key": (d, keys),
      "value": (d, keys),
      "output": (queries, d),
      "gate": (d, ff),
      "up": (d, ff),
      "down": (ff, d),
    }

  def lower(self, n_layers: int) -> "Architecture":
    """The same family cut to its first `n_layers` blocks (the AR, or a target without what is above K)."""
    if not 1 <= n_layers <= self.n_layers:
      raise ValueError(f"asked for the first {n_layers} blocks of a model that has {self.n_layers}")
    windows = None if self.windows is None else self.windows[:n_layers]
    return dataclasses.replace(self, n_layers=n_layers, windows=windows)
