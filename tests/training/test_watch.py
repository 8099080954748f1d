"""What is watched while RL trains says what it should of pairs that are known, and runs on a real one."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.autoencoder.fve import baseline_variance
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.training.watch import watch_pair

VECTORS = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
BASELINE = baseline_variance(VECTORS)


def known_pair(texts):
  """The AV writes `texts`; an AR is a function from a text to the number of an activation."""

  def reconstruct(ar, several, *, batch):
    return np.stack([VECTORS[ar(text)] if text else VECTORS[0] for text in several])

  sample = lambda params, vectors, key, *, batch: (texts, np.ones(len(texts)))
  return SimpleNamespace(sample_explanations=sample, reconstruct=reconstruct)


def watch(texts, live, fixed):
  pair = known_pair(texts)
  return watch_pair(pair, {"av": None, "ar": live}, fixed, VECTORS, None, BASELINE)


first_word = lambda text: int(text.split()[0]) % 12
any_number = lambda text: max(int(word) for word in text.split())
one_lower = lambda text: (any_number(text) - 1) % 12
TEXTS = [f"{i} 0" for i in range(12)]


def test_a_code_in_the_order_or_between_the_two_is_seen():
  honest = watch(TEXTS, any_number, any_number)
  assert honest["fve_held_out"] == honest["fve_fixed"] == pytest.approx(1, abs=1e-6)
  assert honest["retention_shuffle"] == pytest.approx(1) and honest["duplicates"] == 0

  by_order = watch(TEXTS, first_word, any_number)
  assert by_order["fve_held_out"] == pytest.approx(1, abs=1e-6)
  assert by_order["retention_shuffle"] < 0.2

  private = watch(TEXTS, any_number, one_lower)
  assert private["fve_held_out"] == pytest.approx(1, abs=1e-6) and private["fve_fixed"] < 0.2
  assert private["retention_shuffle"] == pytest.approx(1)


def test_each_text_is_compared_with_its_own_activation():
  moved = TEXTS[1:] + TEXTS[:1]
  assert watch(moved, any_number, any_number)["fve_held_out"] < 0.2


def test_what_cannot_be_said_is_left_out():
  found = watch([None] * 12, any_number, None)
  assert found.keys() == {"fve_held_out"} and found["fve_held_out"] < 0
  repeated = watch(["3"] * 10 + [None] * 2, any_number, None)
  assert repeated["duplicates"] == pytest.approx(0.9) and "retention_shuffle" not in repeated


def test_a_random_model_is_watched_and_the_key_decides():
  base = random_model("random:tiny")
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=2, scale=5.0, max_new_tokens=24, dtype=jnp.float32, remat=False)
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  params = {
    "av": verbalizer_params(base.params, 64, "scalar"),
    "ar": reconstructor_params(base.params, 2),
  }
  vectors = np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32)
  given = params, params["ar"], vectors, jax.random.key(0), baseline_variance(vectors)
  found = watch_pair(pair, *given)
  assert found["fve_held_out"] == found["fve_fixed"] and np.isfinite(list(found.values())).all()
  assert watch_pair(pair, *given) == found
