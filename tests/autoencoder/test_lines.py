"""An AR that reads each line by itself: what it rebuilds is the sum over lines, and the order of lines says nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.rows import encode_inputs, encode_lines
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.training import sft

TEXTS = ["Next: a, b\nAbout: rivers\nEnds: x", "About: rivers", "a\nb\nc\nd"]


@pytest.fixture(scope="module")
def base():
  return load_pretrained("random:tiny")


def pair_of(base, lines=3):
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=1, scale=5.0, max_new_tokens=64, ar_lines=lines)
  return make_pair(base.architecture, base.tokenizer, prompts, settings)


@pytest.fixture(scope="module")
def params(base):
  return reconstructor_params(base.params, 1)


def test_lines_are_rows_and_a_longer_text_has_the_rest_in_its_last(base):
  prompts = pair_of(base).prompts
  found = encode_lines(prompts, base.tokenizer, [*TEXTS, None, ""], 3, 40)
  assert found.tokens.shape == (5, 3, 40) and found.fits.tolist() == [True, True, True, False, True]
  alone = encode_inputs(prompts, base.tokenizer, ["About: rivers", "c\nd", ""], 40)
  np.testing.assert_array_equal(found.tokens[0, 1], alone.tokens[0])
  np.testing.assert_array_equal(found.tokens[2, 2], alone.tokens[1])
  # Of a text that is none, and of an empty one, one empty line is read.
  for i in (3, 4):
    assert found.lengths[i].tolist() == [alone.lengths[2], 0, 0]
    np.testing.assert_array_equal(found.tokens[i, 0], alone.tokens[2])
  assert (found.lengths > 0).sum(1).tolist() == [3, 1, 3, 1, 1]


def test_a_line_too_long_makes_the_text_unfit_as_a_whole(base):
  prompts = pair_of(base).prompts
  found = encode_lines(prompts, base.tokenizer, ["short\n" + "x" * 90], 3, 40)
  assert not found.fits[0] and (found.lengths[0] > 0).sum() == 1
  assert encode_lines(prompts, base.tokenizer, ["short\n" + "x" * 90], 3, 40, grow=True).fits[0]


def test_the_reconstruction_is_the_sum_over_lines_in_any_order(base, params):
  apart, whole = pair_of(base), pair_of(base, lines=1)
  lines = TEXTS[0].split("\n")
  expected = whole.reconstruct(params, lines).sum(axis=0)
  found = apart.reconstruct(params, [TEXTS[0], "\n".join(reversed(lines)), "About: rivers"])
  np.testing.assert_allclose(found[0], expected, rtol=2e-4, atol=2e-4)
  np.testing.assert_allclose(found[1], found[0], rtol=2e-4, atol=2e-4)
  np.testing.assert_allclose(
    found[2], whole.reconstruct(params, ["About: rivers"])[0], rtol=2e-4, atol=2e-4
  )
  # Read whole, the order does say something.
  both = whole.reconstruct(params, [TEXTS[0], "\n".join(reversed(lines))])
  assert np.abs(both[0] - both[1]).max() > 1e-2


def test_its_loss_has_gradients_through_every_line(base, params):
  pair = pair_of(base)
  rows = pair.encode(TEXTS)
  vectors = np.random.default_rng(0).normal(size=(3, base.architecture.d_model))
  batch = {
    "tokens": rows.tokens,
    "lengths": rows.lengths,
    "activations": vectors.astype(np.float32),
  }
  loss, gradient = jax.value_and_grad(sft.ar_loss)(params, batch, pair)
  assert np.isfinite(loss) and all(np.isfinite(one).all() for one in jax.tree.leaves(gradient))
  # The embedding of a letter that stands in the second line alone moves.
  letter = base.tokenizer.encode("v", add_special_tokens=False)[0]
  assert np.abs(gradient["transformer"]["embedding"][letter]).max() > 0


def test_a_number_of_lines_that_is_none_is_refused(base):
  with pytest.raises(NLAError, match=r"config\.prompts\.ar_lines=0"):
    pair_of(base, lines=0)
  assert dataclasses.replace(pair_of(base), ar_lines=1).encode(TEXTS).tokens.ndim == 2
