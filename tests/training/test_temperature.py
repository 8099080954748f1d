"""The sampler and the trainer mean the same distribution, whatever the temperature."""

import jax
import numpy as np
import pytest

from nla_jax.autoencoder import pair as pair_lib
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.config import default_config
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.training.learner import Learner, frozen

PROMPT = "Explain.\n\n<concept>{injection_char}</concept>"
VECTORS = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)


def improved(temperature: float, **settings) -> dict:
  """Metrics of one update of a fresh tiny AV on answers that it drew at a temperature."""
  base = load_pretrained("random:tiny")
  rl = default_config().rl
  rl.update(activations=2, group=4, max_new_tokens=8, steps=1, **settings)
  prompts = make_prompts(base.tokenizer, PROMPT)
  chosen = pair_lib.PairSettings(
    layer=1, scale=5.0, max_new_tokens=8, temperature=temperature, remat=False
  )
  pair = pair_lib.make_pair(base.architecture, base.tokenizer, prompts, chosen)

  av = verbalizer_params(jax.tree.map(np.array, base.params), 64, "scalar")
  ar = reconstructor_params(jax.tree.map(np.array, base.params), pair.layer)
  learner = Learner(pair, rl, frozen(av, pair.verbalizer.dtype))
  states = learner.create(av, ar)
  rollout = pair.roll_out(
    learner.params(states, "av"), VECTORS, jax.random.key(0), np.arange(8, dtype=np.int32)
  )
  given, rewards = np.repeat(VECTORS, 4, axis=0), np.arange(8.0, dtype=np.float32)
  _, metrics = learner.improve(states["av"], rollout, given, rewards, kl_weight=0.1, seed=0)
  return {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
  ("temperature", "settings"), [(0.3, {}), (50.0, {"epochs": 2}), (50.0, {"kl": "k1"})]
)
def test_sampler_and_trainer_agree(temperature, settings):
  """A trainer at temperature 1 would be nats away, and every ratio with it."""
  metrics = improved(temperature, **settings)
  assert metrics["sampler_gap"] < 1e-4
  if (
    "epochs" not in settings
  ):  # the reference is the AV itself here; a second epoch has moved the AV
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)


def test_entropy_is_of_the_distribution_that_was_drawn_from():
  cold, plain, hot = (improved(temperature)["entropy"] for temperature in (0.2, 1.0, 50.0))
  vocabulary = load_pretrained("random:tiny").architecture.vocab_size
  assert cold < plain < hot == pytest.approx(np.log(vocabulary), rel=1e-2)
