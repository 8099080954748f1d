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
from nla_jax.models.lora import Lora, adapter_params, split
from nla_jax.models.parameters import as_base
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.training.learner import Learner, ReconstructionBatch, frozen

CONFIG = str(Path(__file__).parents[2] / "configs" / "tiny.py")
TEXTS = ("a", "a longer one", "the longest of all that fits in the cap of 96 bytes", None)


@pytest.fixture(scope="module", params=[None, Lora(4, 8.0)], ids=["whole", "adapters"])
def lora(request):
  return request.param


@pytest.fixture(scope="module")
def programs(lora):
  """Sizes of jax's caches of programs after a few steps: program -> how often it was compiled.

  With adapters, of the base: nothing but them is trained, and it stays as it was, where it was.
  """
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
      lora=lora,
      ar_lora=lora,
    ),
  )
  av, ar = _pair_params(pair, base.params)
  stack = split(av)[1]
  before_training = jax.tree.map(np.array, stack)
  learner = Learner(pair, config.rl, frozen(av, jnp.float32), {"av": stack, "ar": split(ar)[1]})
  states = learner.create(av, ar)
  each, group = config.rl.activations, config.rl.group
  vectors = np.random.default_rng(0).normal(size=(each, 64)).astype(np.float32)
  given, ids = np.repeat(vectors, group, axis=0), np.arange(each * group, dtype=np.int32)
  sampler = {
    "leaf_copy": weights.leaf_copy,
    "prefill": explanations.prefill,
    "decode": loop.decode,
    "enlarged": loop.enlarged,
  }
  before = {name: program._cache_size() for name, program in sampler.items()}
  for step, text in enumerate(TEXTS):
    rollout = pair.roll_out(learner.params(states, "av"), vectors, jax.random.key(step), ids)
    inputs = pair.encode([text] * len(given))
    batch = ReconstructionBatch(inputs.tokens, inputs.lengths, given, inputs.fits)
    states, errors, _ = learner.reconstruct_and_learn(states, batch, None)
    states["av"], _ = learner.improve(
      states["av"], rollout, given, -errors, kl_weight=0.01 * step, seed=step
    )
    pair.reconstruct(learner.params(states, "ar"), [text] * 3)
  if lora:
    _assert_the_base_is_one(learner, states, stack, before_training)
  found = {name: program._cache_size() - before[name] for name, program in sampler.items()}
  return found | {
    name: getattr(learner, name)._cache_size() for name in ("scores", "update_av", "update_ar")
  }


def _pair_params(pair, params) -> tuple[dict, dict]:
  """A fresh pair's parameters; with adapters both stand on one base."""
  params, key = jax.tree.map(jnp.array, params), jax.random.key(0)
  if pair.verbalizer.lora is None:
    again = jax.tree.map(jnp.array, params)
    return verbalizer_params(params, 64, "scalar"), reconstructor_params(again, pair.layer)

  base = as_base(params)
  adapters = [
    adapter_params(model.architecture, model.lora, key)
    for model in (pair.verbalizer, pair.reconstructor)
  ]
  av = verbalizer_params(base, 64, "scalar", adapters[0])
  return av, reconstructor_params(base, pair.layer, adapters[1])


def _assert_the_base_is_one(learner, states, base, before: dict) -> None:
  """Four models read the same arrays, in which nothing has changed; no state holds any of them."""
  of = [learner.params(states, name)["base"] for name in ("av", "ar")]
  assert all(one is base for one in (*of, learner.reference["base"]))
  jax.tree.map(np.testing.assert_array_equal, base, before)  # donated arrays could not be read

  names = {
    path[-1].key
    for path, _ in jax.tree_util.tree_leaves_with_path([x.params for x in states.values()])
  }
  assert names - {"weight"} and all("_lora_" in name for name in names - {"weight"})
  held = {id(leaf) for leaf in jax.tree.leaves(states)}
  assert not held & {id(leaf) for leaf in jax.tree.leaves(base)}


def test_updates_and_scores_are_compiled_once(programs):
  assert {name: programs[name] for name in ("scores", "update_av", "update_ar")} == {
    "scores": 1,
    "update_av": 1,
    "update_ar": 1,
  }


def test_the_sampler_is_compiled_once_for_each_size_of_its_cache(programs, lora):
  sizes = len(Sampling(stop_ids=(0,), max_new_tokens=96).cache_sizes)
  assert sizes == 2 and programs["prefill"] == 1
  # As many as there are shapes of parameters, of adapters too.
  assert programs["leaf_copy"] <= (24 if lora else 12)
  assert programs["decode"] <= sizes and programs["enlarged"] <= sizes - 1


def test_texts_of_any_length_are_a_few_shapes():
  """Inputs past the fixed length grow in steps of 32 tokens."""
  base = random_model("random:tiny")
  prompts = make_prompts(base.tokenizer, load_config(CONFIG).prompts.av)
  widths = {
    encode_inputs(prompts, base.tokenizer, ["x" * n], 64, grow=True).tokens.shape[1]
    for n in range(1, 200)
  }
  assert len(widths) <= 1 + 200 // 32 and max(widths) >= 200
