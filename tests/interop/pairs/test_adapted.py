"""A pair of adapters is written as PEFT's files, loads as it was, and only on the base that it was trained on."""

import dataclasses

import jax
import numpy as np
import pytest

import nla_jax
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.errors import NLAError
from nla_jax.interop import describe
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs import adapted
from nla_jax.interop.pairs.export import export_pair
from nla_jax.models.lora import Lora, adapter_params, split
from nla_jax.models.parameters import as_base
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params

LAYER, LORA = 1, Lora(4, 8.0)
TEXTS = ["some words", None, "other words, and more of them"]


@pytest.fixture(scope="module")
def nla() -> NLA:
  base = load_pretrained("random:tiny")
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(
    layer=LAYER, scale=5.0, map="affine", max_new_tokens=24, lora=LORA, ar_lora=LORA
  )
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  shared, d = as_base(base.params), base.architecture.d_model

  def trained(model, seed: int):
    # Both factors are drawn: fresh adapters add nothing, and an export that lost them would not be noticed.
    fresh = adapter_params(model.architecture, LORA, jax.random.key(seed))
    draw = np.random.default_rng(seed).normal
    return jax.tree.map(lambda leaf: draw(size=leaf.shape).astype(np.float32) * 0.1, fresh)

  av = verbalizer_params(shared, d, "affine", trained(pair.verbalizer, 0))
  ar = reconstructor_params(shared, LAYER, trained(pair.reconstructor, 1))
  return NLA(pair, av, ar, "random:tiny", 0.5)


@pytest.fixture(scope="module")
def folder(nla, tmp_path_factory):
  folder = tmp_path_factory.mktemp("pair")
  base = load_pretrained("random:tiny", weights=False)
  side = {"base": "random:tiny", "stage": "rl", "trained_on": "tiny.txt"}
  export_pair(nla, folder, metrics=None, adapted_base=base, **side)
  return folder


def test_what_is_written_loads_as_it_was(nla, folder):
  found = nla_jax.load(folder, compute="float32")
  assert found.pair.verbalizer.lora == found.pair.reconstructor.lora == LORA
  for mine, theirs in ((nla.av_params, found.av_params), (nla.ar_params, found.ar_params)):
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
  np.testing.assert_array_equal(found.reconstruct(TEXTS), nla.reconstruct(TEXTS))

  # The base is held once, and is the target too.
  base = split(found.av_params)[1]
  assert split(found.ar_params)[1] is base
  _, target = found._target
  assert target["base"] is base


def test_whole_models_are_the_adapters_on_their_base(nla, folder, tmp_path):
  export_pair(nla, tmp_path, base="random:tiny", stage="rl", trained_on="x", metrics=None)
  whole = nla_jax.load(tmp_path, compute="float32")
  assert whole.pair.verbalizer.lora is None
  np.testing.assert_allclose(whole.reconstruct(TEXTS), nla.reconstruct(TEXTS), atol=1e-4)


def test_a_pair_in_an_installed_package_is_found(nla, folder, tmp_path, monkeypatch):
  package = tmp_path / "nla_of_a_test"
  package.mkdir()
  (package / "__init__.py").write_text("raise ImportError('it is never imported')")
  for half in ("av", "ar"):
    (package / half).symlink_to(folder / half)
  monkeypatch.syspath_prepend(tmp_path)
  found = nla_jax.load("package:nla_of_a_test", compute="float32")
  np.testing.assert_array_equal(found.reconstruct(TEXTS), nla.reconstruct(TEXTS))
  with pytest.raises(NLAError, match="pip install --no-deps nla_of_nobody"):
    nla_jax.load("package:nla_of_nobody")


def test_adapters_of_another_base_are_refused(folder, monkeypatch):
  true = adapted.find_base("random:tiny")
  other = dataclasses.replace(true, model_hash="0123456789abcdef")
  monkeypatch.setattr(adapted, "find_base", lambda name: other)
  with pytest.raises(
    NLAError, match=r"were trained on random:tiny with the hash .* has 0123456789ab"
  ):
    nla_jax.load(folder, compute="float32")


def test_an_adapted_half_describes_itself(folder):
  for half, blocks in (("av", 4), ("ar", LAYER + 1)):
    found = describe.describe(str(folder / half))
    assert found.missing == [] and "as adapters" in found.kind
    assert found.facts["adapters"].startswith("rank 4, alpha 8, on query, key")
    assert found.facts["blocks"] == f"{blocks} (0..{blocks - 1})"
  assert "PEFT's format on `random:tiny`" in (folder / "ar" / "README.md").read_text()
