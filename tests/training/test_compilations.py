"""However long texts and answers are, an RL run compiles each of its programs a known number of times."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.autoencoder import pair as pair_lib
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.rows import encode_inputs
from nla_jax.config import load_config
from nla_jax.decoding import explanations, loop, weights
from nla_jax.decoding.loop import Sampling
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.training.learner import Learner, ReconstructionBatch

CONFIG = str(Path(__file__).parents[2] / "configs" / "tiny.py")
TEXTS = ("a", "a longer one", "the longest of all that fits in the cap of 96 bytes", None)


@pytest.fixture(scope="module")
def programs():
  """Sizes of jax's caches of programs after three steps: program -> how often it was compiled."""
  config, base = load_config(CONFIG), random_model("random:tiny")
  prompts = make_prompts(base.tokenizer, config.prompts.av)
  pair = pair_lib.make_pair(
    base.architecture,
    base.tokenizer,
    prompts,
    pair_lib.PairSettings(
      layer=config.layer,
      scale=5.0,
      mode="replace",
      map="scalar",
      max_new_tokens=config.rl.max_new_tokens,
      dtype=jnp.float32,
      remat=False,
    ),
  )
  fresh = lambda: verbalizer_params(jax.tree.map(jnp.array, base.params), 64, "scalar")
  learner = Learner(pair, config.rl, fresh())
  ar_params = reconstructor_params(jax.tree.map(jnp.array, base.params), config.layer)
  states = learner.create(fresh(), ar_params)
  each, group = config.rl.activations, config.rl.group
  vectors = np.random.default_rng(0).normal(size=(each, 64)).astype(np.float32)
  given, ids = np.repeat(vectors, group, axis=0), np.arange(each * group, dtype=np.int32)
  sampler = {
    "leaf_copy": weights.leaf_copy,
    "prefill": explanations.prefill,
    "decode": loop.decode,
    "_enlarged": loop._enlarged,
  }
  before = {name: program._cache_size() for name, program in sampler.items()}
  for step, text in enumerate(TEXTS):
    rollout = pair.roll_out(states["av"].params, vectors, jax.random.key(step), ids)
    inputs = pair.encode([text] * len(given))
    batch = ReconstructionBatch(inputs.tokens, inputs.lengths, given, inputs.fits)
    states, errors, _ = learner.reconstruct_and_learn(states, batch, None)
    states["av"], _ = learner.improve(
      states["av"], rollout, given, -errors, kl_weight=0.01 * step, seed=step
    )
    pair.reconstruct(states["ar"].params, [text] * 3)
  found = {name: program._cache_size() - before[name] for name, program in sampler.items()}
  return found | {
    name: getattr(learner, name)._cache_size() for name in ("scores", "update_av", "update_ar")
  }


def test_updates_and_scores_are_compiled_once(programs):
  assert {name: programs[name] for name in ("scores", "update_av", "update_ar")} == {
    "scores": 1,
    "update_av": 1,
    "update_ar": 1,
  }


def test_the_sampler_is_compiled_once_for_each_size_of_its_cache(programs):
  sizes = len(Sampling(stop_ids=(0,), max_new_tokens=96).cache_sizes)
  assert sizes == 2 and programs["prefill"] == 1
  assert programs["leaf_copy"] <= 12  # as many as there are shapes of parameters
  assert programs["decode"] <= sizes and programs["_enlarged"] <= sizes - 1


def test_texts_of_any_length_are_a_few_shapes():
  """Inputs past the fixed length grow in steps of 32 tokens."""
  base = random_model("random:tiny")
  prompts = make_prompts(base.tokenizer, load_config(CONFIG).prompts.av)
  widths = {
    encode_inputs(prompts, base.tokenizer, ["x" * n], 64, grow=True).tokens.shape[1]
    for n in range(1, 200)
  }
  assert len(widths) <= 1 + 200 // 32 and max(widths) >= 200
