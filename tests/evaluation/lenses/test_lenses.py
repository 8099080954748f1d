"""Lenses against their definitions: on a model whose later blocks are known, and by differentiating all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.data.store.documents import Documents, StoredDocument, documents_to_parquet
from nla_jax.evaluation.lenses import affine, jacobian, lens, samples
from nla_jax.evaluation.lenses.lens import Lens
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.parameters import lower_params, unembedding
from nla_jax.models.transformer import Transformer
from nla_jax.reading.complete import Target

LAYER = 1


def target_of(architecture, params):
  return Target(LanguageModel(architecture, jnp.float32), {"base": params}, (-1,))


def texts(n, length=24, seed=0):
  return np.random.default_rng(seed).integers(0, 300, (n, length)).tolist()


def hushed(params):
  """The same model, whose blocks above K add nothing."""
  layers = {
    name: leaf.at[LAYER + 1 :].set(0.0) if name in ("output", "down") else leaf
    for name, leaf in params["layers"].items()
  }
  return {**params, "layers": layers}


def test_the_logit_lens_is_the_output_layer_on_the_activation(tiny_architecture, tiny_params):
  a = tiny_architecture
  vectors = np.random.default_rng(0).normal(size=(3, a.d_model)).astype(np.float32)
  scale = 1 / np.sqrt((vectors**2).mean(axis=1, keepdims=True) + a.rms_eps)
  hidden = vectors * scale * (a.norm_offset + np.asarray(tiny_params["final_norm"]))
  best = np.argsort(-(hidden @ np.asarray(unembedding(tiny_params)).T), axis=1)[:, :5]
  tokenizer = byte_tokenizer()
  expected = [tokenizer.decode(row, skip_special_tokens=True).replace("\ufffd", "") for row in best]
  target = target_of(a, tiny_params)
  assert lens.words(Lens(), target, tokenizer, vectors) == expected

  # A lens that turns round reads what the logit lens reads of the opposite.
  turned = Lens(-np.eye(a.d_model, dtype=np.float32))
  assert lens.words(turned, target, tokenizer, -vectors) == expected


def test_the_jacobian_lens_is_the_mean_derivative_by_block_k(tiny_architecture, tiny_params):
  a, target = tiny_architecture, target_of(tiny_architecture, tiny_params)
  (tokens,) = texts(1)
  ids = jnp.array([tokens])
  found = jacobian.fit(target, LAYER, [tokens], documents=1, seed=0)

  # All of it: the last block's output at every position, by what is added to block K's at every position.
  lower = {"params": lower_params(tiny_params, LAYER + 1)}
  below = Transformer(a, LAYER, jnp.float32).apply(lower, ids).hidden
  model, layers = jacobian._later(target, LAYER, len(tokens))

  def last(read):
    tree = {"params": {}, "frozen": {"embedding": read, "layers": layers}}
    return model.apply(tree, jnp.arange(len(tokens))[None]).hidden[0]

  whole = Transformer(a, a.n_layers - 1, jnp.float32).apply({"params": tiny_params}, ids)
  np.testing.assert_allclose(last(below[0]), whole.hidden[0], rtol=2e-4, atol=2e-4)
  every = jax.jacrev(last)(below[0])  # [length, d, length, d]
  places = np.array(samples.valid_positions(len(tokens)))
  expected = np.asarray(every)[places][:, :, places].sum(axis=0).mean(axis=1)
  np.testing.assert_allclose(found.matrix, expected, rtol=1e-3, atol=1e-4)


def test_blocks_that_add_nothing_have_the_identity(tiny_architecture, tiny_params):
  target = target_of(tiny_architecture, hushed(tiny_params))
  # Of texts of two lengths, so that padding would show.
  several = [*texts(2), *texts(1, 20)]
  found = jacobian.fit(target, LAYER, several, documents=2, seed=0)
  np.testing.assert_allclose(found.matrix, np.eye(tiny_architecture.d_model), atol=1e-5)
  assert (
    jacobian.fit(target, tiny_architecture.n_layers - 1, several, documents=1, seed=0) == Lens()
  )

  read = samples.read_samples(target, LAYER, several)
  np.testing.assert_allclose(read.read, read.final, atol=1e-5)
  fitted = affine.fit(target, read, steps=0, seed=0)
  assert fitted.kl_identity == pytest.approx(0, abs=1e-5)
  vectors = read.read[:4]
  np.testing.assert_allclose(fitted.lens.of(vectors), vectors, rtol=1e-3, atol=1e-2)


def test_the_affine_lens_finds_a_map_that_is_affine(tiny_architecture, tiny_params):
  target, d = target_of(tiny_architecture, tiny_params), tiny_architecture.d_model
  random = np.random.default_rng(0)
  read = random.normal(size=(600, d)).astype(np.float32) * np.geomspace(
    0.1, 30, d, dtype=np.float32
  )
  matrix, bias = np.eye(d) + random.normal(size=(d, d)) / 8, random.normal(size=d)
  final = (read @ matrix.T + bias).astype(np.float32)
  known = samples.Samples(read, final, np.repeat(np.arange(30), 20))
  fitted = affine.fit(target, known, steps=0, seed=0)
  assert fitted.kl < 0.01 * fitted.kl_identity
  np.testing.assert_allclose(fitted.lens.matrix, matrix, atol=0.02)


def test_descent_goes_on_where_squared_error_ends(tiny_architecture, tiny_params):
  target = target_of(tiny_architecture, tiny_params)
  read = samples.read_samples(target, LAYER, texts(40))
  ridge = affine.fit(target, read, steps=0, seed=0)
  descended = affine.fit(target, read, steps=60, seed=0)
  assert descended.kl < ridge.kl < ridge.kl_identity


def test_texts_are_of_documents_that_are_not_evaluated():
  lengths = {"held_out": 40, "rl": 17, "av_sft": 30, "ar_sft": 200}
  made = [
    StoredDocument(name, name, name, np.full(n, i, np.int32), "")
    for i, (name, n) in enumerate(lengths.items())
  ]
  found = samples.draw_texts(Documents(documents_to_parquet(made)), 5, 0)
  # The one of 17 tokens has none between its first 16 and its last.
  assert sorted((len(one), one[0]) for one in found) == [(30, 2), (128, 3)]
