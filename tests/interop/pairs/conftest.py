"""A small pair on disk, which each test may damage."""

import pytest
from support.interop.small_pair import write_pair


@pytest.fixture
def folders(tmp_path, torch_model, tokenizer):
  """base, av and ar of an untied llama with three blocks."""
  return write_pair(tmp_path, torch_model("llama_untied"), tokenizer)
