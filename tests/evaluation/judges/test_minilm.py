"""The embedder says what torch says of the same weights, and of near sentences that they are near."""

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation.judges import minilm

TEXTS = [
  "A cat sleeps on the sofa.",
  "A kitten naps on a couch.",
  "The parliament passed a law.",
  "",
]

needs_package = pytest.mark.skipif(minilm.find_folder() is None, reason="the embedder is absent")


@needs_package
def test_near_sentences_are_near():
  found = minilm.load_embedder()(TEXTS)
  assert found.shape == (4, 384)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
  assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]


@needs_package
@pytest.mark.slow
def test_torch_agrees():
  torch = pytest.importorskip("torch")
  from transformers import AutoModel, AutoTokenizer

  folder = minilm.find_folder()
  tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
  for text, found in zip(TEXTS, minilm.load_embedder()(TEXTS)):
    with torch.no_grad():
      states = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
    mean = states.mean(0).numpy()
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=2e-5)


def test_without_the_package_there_is_none_and_a_damaged_one_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(minilm, "find_folder", lambda: None)
  assert minilm.load_embedder() is None
  with pytest.raises(NLAError, match="holds no embedder"):
    minilm.load_embedder(tmp_path)
