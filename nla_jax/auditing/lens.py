"""The logit lens: what the target would say if block K were its last one, and how much the next token surprises it.

Source: nostalgebraist, interpreting GPT: the logit lens, 2020.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.models.architectures import Architecture
from nla_jax.models.block import rms_norm
from nla_jax.models.parameters import unembedding
from nla_jax.models.products import einsum

_ROWS = 64  # whose logits exist at once
WORDS = 10


def lens_words(nla: Any, rows: np.ndarray, words: int = WORDS) -> list[str]:
  """The likeliest tokens at activations [n, d_model], as one text each: what stands in for an explanation."""
  best = [np.argsort(-part, axis=1)[:, :words] for _, part in _logprobs(nla, rows)]
  decode = nla.pair.tokenizer.decode
  return [", ".join(decode([int(i)]).strip() for i in row) for part in best for row in part]


def surprise(nla: Any, rows: np.ndarray, following: Sequence[int]) -> np.ndarray:
  """[n] nats of the token that follows each activation, by the lens."""
  following = np.asarray(following)
  found = [
    -part[np.arange(len(part)), following[start : start + len(part)]]
    for start, part in _logprobs(nla, rows)
  ]
  return np.concatenate(found) if found else np.zeros(0)


def _logprobs(nla: Any, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Parts of the log-probabilities [n, vocabulary], and where each begins."""
  target = nla.whole_target
  dtype = jnp.dtype(target.model.dtype)
  for start in range(0, len(rows), _ROWS):
    part = np.asarray(rows[start : start + _ROWS], np.float32)
    # One shape, so that one program is compiled.
    padded = np.pad(part, ((0, _ROWS - len(part)), (0, 0)), constant_values=1.0)
    found = _by_lens(target.params, padded, architecture=target.model.architecture, dtype=dtype)
    yield start, np.asarray(found)[: len(part)]


@functools.partial(jax.jit, static_argnames=("architecture", "dtype"))
def _by_lens(params: Any, rows, *, architecture: Architecture, dtype):
  tree = params["base"]
  normed = rms_norm(rows, tree["final_norm"], architecture.rms_eps, architecture.norm_offset)
  logits = einsum("bd,vd->bv", normed, unembedding(tree), dtype, "batch", "vocabulary")
  return jax.nn.log_softmax(logits)
