"""The head that says how large an activation is goes with an exported pair, and comes back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.autoencoder.magnitude import Magnitude
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.interop.pairs.export import export_pair
from nla_jax.interop.pairs.load import load_directories
from nla_jax.interop.pairs.magnitude_file import MAGNITUDE_FILE
from nla_jax.interop.pairs.sidecar import read_model_sidecar
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params

TEXTS = ["a cat", "the mat"]


@pytest.fixture(scope="module")
def nla() -> NLA:
  base = random_model("random:tiny")
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=2, scale=5.0, max_new_tokens=8, remat=False)
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  params = jax.tree.map(jnp.asarray, base.params)
  av, ar = verbalizer_params(params, 64, "scalar"), reconstructor_params(params, 2)
  weight = np.random.default_rng(0).normal(size=64).astype(np.float32)
  return NLA(pair, av, ar, "random:tiny", magnitude=Magnitude(weight, 2.5))


def _export(nla, folder):
  metrics = {"fve": {"round_trip": {"value": 0.5}}, "baseline_variance": 0.4}
  metrics["magnitude_r2"] = {"value": 0.25, "ci95": [0.2, 0.3], "n": 40}
  export_pair(nla, folder, base="random:tiny", stage="rl", trained_on="x", metrics=metrics)
  return folder


def test_it_is_exported_and_loaded_as_it_is(nla, tmp_path):
  folder = _export(nla, tmp_path / "hf")
  back = load_directories(folder, compute="float32")
  np.testing.assert_array_equal(back.magnitude.weight, nla.magnitude.weight)
  assert back.magnitude.bias == 2.5
  np.testing.assert_allclose(
    back.reconstruct(TEXTS, full_size=True), nla.reconstruct(TEXTS, full_size=True), rtol=1e-4
  )
  training = read_model_sidecar(folder / "ar").training
  assert training["magnitude_r2_held_out"] == 0.25 and MAGNITUDE_FILE in training["magnitude"]

  # A sidecar that names what is not there.
  (folder / "ar" / MAGNITUDE_FILE).unlink()
  with pytest.raises(NLAError, match=f"names {MAGNITUDE_FILE}, which is not there") as caught:
    load_directories(folder, compute="float32")
  assert "\n" not in str(caught.value)


def test_a_pair_without_it_is_exported_as_before(nla, tmp_path):
  folder = _export(dataclasses.replace(nla, magnitude=None), tmp_path / "hf")
  assert not (folder / "ar" / MAGNITUDE_FILE).exists()
  assert "magnitude" not in read_model_sidecar(folder / "ar").training
  back = load_directories(folder, compute="float32")
  assert back.magnitude is None
  with pytest.raises(NLAError, match="only its direction"):
    back.reconstruct(TEXTS, full_size=True)
