"""Scores of tokens without words: each kind by its share of the transcript, and the greatest of them counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation.lenses import lens
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.language_model import LanguageModel
from nla_jax.reading.complete import Target
from nla_jax.watching import first_pass
from nla_jax.watching.first_pass import Probe, Signals, scores


def test_the_greatest_share_counts_and_nothing_scores_nothing():
  rows = np.eye(4, dtype=np.float32)
  probe = Probe(np.array([0.0, 9.0, 1.0, 2.0], np.float32), 0.5)
  known = np.array([[5.0, 0, 0, 0]], np.float32)
  np.testing.assert_allclose(scores(Signals(probe=probe), rows, [-1] * 4), [0, 0.75, 0.25, 0.5])
  np.testing.assert_allclose(
    scores(Signals(probe=probe, known=known), rows, [-1] * 4), [0.75, 0.75, 0.25, 0.5]
  )
  np.testing.assert_array_equal(scores(Signals(), rows, [-1] * 4), np.zeros(4))
  assert Signals(probe=probe, known=known).names == ["probe", "known"]


def test_surprise_is_the_logit_lens_of_the_next_token():
  base = load_pretrained("random:tiny")
  architecture, params = base.architecture, base.params
  target = Target(LanguageModel(architecture, jnp.float32), {"base": params}, ())
  rows = np.random.default_rng(0).normal(size=(70, architecture.d_model)).astype(np.float32)
  ids = np.arange(70) * 3 % architecture.vocab_size
  ids[-1] = -1
  found = lens.surprise(target, rows, ids)

  # By hand: the final norm, the output layer, a softmax.
  scale = np.asarray(params["final_norm"]) + architecture.norm_offset
  normed = rows / np.sqrt((rows**2).mean(1, keepdims=True) + architecture.rms_eps) * scale
  matrix = np.asarray(params.get("unembedding", np.asarray(params["embedding"]).T), np.float32)
  logits = normed @ (matrix if matrix.shape[0] == rows.shape[1] else matrix.T)
  logits -= logits.max(1, keepdims=True)
  expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(70), ids]
  np.testing.assert_allclose(found[:-1], expected[:-1], rtol=2e-4, atol=2e-4)
  assert found[-1] == 0


@pytest.mark.parametrize(
  "held, words",
  [
    ({"weights": np.ones(3)}, r"weights of shape \(3,\), expected 4"),
    ({"weights": np.full(4, np.nan)}, "expected 4 finite"),
    ({}, r"shape \(0,\)"),
  ],
)
def test_a_probe_of_another_width_is_refused(tmp_path, held, words):
  np.savez(tmp_path / "probe.npz", **held)
  with pytest.raises(NLAError, match=words):
    first_pass.load_probe(tmp_path / "probe.npz", 4)


def test_files_of_arrays_that_are_none_are_one_line(tmp_path):
  (tmp_path / "x.npz").write_text("{}")
  for load in (first_pass.load_probe, first_pass.load_known):
    with pytest.raises(NLAError, match=r"x\.npz"):
      load(tmp_path / "x.npz", 4)
    with pytest.raises(NLAError, match="cannot be read"):
      load(tmp_path / "missing.npz", 4)
  np.savez(tmp_path / "known.npz", activations=np.ones((2, 3)))
  with pytest.raises(NLAError, match=r"expected \[k, 4\]"):
    first_pass.load_known(tmp_path / "known.npz", 4)
