"""What `read` reads is transformers' `hidden_states[K + 1]`, for every family, in chunks or not, beyond any window."""

import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.decoding.residuals import residuals
from nla_jax.models.parameters import lower_params

FAMILIES = ("llama", "llama3", "llama3_untied", "qwen2", "qwen3", "gemma3_text", "gemma3")
TEXT = np.random.default_rng(3).integers(0, 101, 70)
POSITIONS = [[69, 0, 3, 5, 6, 7, 31, 32], [11]]  # Gemma's window here is 6 tokens wide


@pytest.mark.parametrize("chunk", [8, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_residuals_equal_transformers(pair, torch_forward, relative_error, family, chunk):
  model, architecture, params = pair(family)
  expected, _ = torch_forward(model, TEXT[None], np.ones((1, len(TEXT)), bool))
  for layer in (0, 2):
    found = residuals(
      lower_params(params, layer + 1),
      [TEXT.tolist(), TEXT[:12].tolist()],
      POSITIONS,
      architecture=architecture,
      layer=layer,
      dtype=jnp.float32,
      chunk=chunk,
    )
    for rows, positions in zip(found, POSITIONS, strict=True):
      assert relative_error(rows, expected[layer][0, positions]) < 1e-4
