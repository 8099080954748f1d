"""Adapters on a frozen base are the model with merged weights, and of the base nothing is copied, kept or changed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.mesh_numbers import COMMON, FAMILIES

from nla_jax.models.architectures import Architecture
from nla_jax.models.injection import ADD, REPLACE
from nla_jax.models.lora import (
  TARGETS,
  Lora,
  adapter_params,
  delta,
  joined,
  names,
  split,
  variables,
)
from nla_jax.models.merge import without_adapters
from nla_jax.models.parameters import as_base, transformer, unembedding
from nla_jax.models.products import from_bits
from nla_jax.models.reconstructor import Reconstructor, reconstructor_params
from nla_jax.models.token_scores import token_scores
from nla_jax.models.verbalizer import Verbalizer, verbalizer_params

BEFORE, AFTER = np.array([7, 8, 9], np.int32), np.array([42, 3], np.int32)
TOKENS = np.random.default_rng(0).integers(0, 300, (3, 6)).astype(np.int32)
LENGTHS = np.array([6, 2, 4], np.int32)
VECTORS = np.random.default_rng(1).normal(size=(3, 32)).astype(np.float32)
LORA = Lora(4, 8.0)


@pytest.fixture(scope="module")
def base_of(random_params):
  """A function of a family: (its architecture, its tree as a frozen base)."""

  @functools.cache
  def make(family: str):
    architecture = Architecture(family=family, **COMMON, **FAMILIES[family])
    return architecture, as_base(random_params(architecture))

  return make


def trained(adapters: dict, seed: int = 2) -> dict:
  """Adapters as training leaves them: B is no longer zero."""
  draw = np.random.default_rng(seed).normal
  return jax.tree.map(lambda x: jnp.asarray(draw(0, 0.2, x.shape), jnp.float32), adapters)


def adapted_av(architecture, base, lora=LORA, fresh=False, **options):
  """(model, parameters) of an AV with adapters."""
  adapters = adapter_params(architecture, lora, jax.random.key(0))
  params = verbalizer_params(base, 32, "scalar", adapters if fresh else trained(adapters))
  return Verbalizer(architecture, 5.0, lora=lora, **options), params


def adapted_ar(architecture, base, lora=LORA, fresh=False, **options):
  """(model, parameters) of an AR of two of the base's three blocks."""
  lower = architecture.lower(2)
  adapters = adapter_params(lower, lora, jax.random.key(0))
  params = reconstructor_params(base, 1, adapters if fresh else trained(adapters))
  return Reconstructor(lower, lora=lora, **options), params


def inputs(model) -> tuple:
  given = (VECTORS, TOKENS) if isinstance(model, Verbalizer) else (TOKENS, LENGTHS)
  return (BEFORE, AFTER, *given) if isinstance(model, Verbalizer) else (BEFORE, *given)


def merged(params, lora):
  """The model's tree with every adapter added to its matrix, as one differentiable expression."""
  tree, base = split(params)
  adapters = tree["transformer"]["layers"]
  n_layers = len(next(iter(adapters.values())))
  base = jax.tree.map(lambda leaf: from_bits(leaf).astype(jnp.float32), base)
  layers = {name: leaf[:n_layers] for name, leaf in base["layers"].items()}
  for target in lora.targets:
    a, b = (adapters[name] for name in names(target))
    layers[target] += jax.vmap(functools.partial(delta, lora))(a, b)
  if n_layers < len(base["layers"]["query"]):
    base = {"embedding": base["embedding"]}
  return {**tree, "transformer": {**base, "layers": layers}}


def plain(model):
  """The model with every weight trained, in float32."""
  return model.clone(lora=None, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params):
  """The AV's log-probabilities of its tokens, through the frozen unembedding; the AR's reconstructions."""
  found = model.apply(variables(params), *inputs(model))
  if not isinstance(model, Verbalizer):
    return found
  return token_scores(found, unembedding(transformer(params)), TOKENS, model.dtype).logprob


def loss_and_gradient(model, params, whole=lambda params: params):
  """A loss that weighs every output differently, and its gradient for what is trained."""
  tree, base = split(params)

  def loss(tree):
    found = apply(model, whole(joined(tree, base)))
    return jnp.sum(found * jnp.cos(jnp.arange(found.size).reshape(found.shape)))

  return jax.jit(jax.value_and_grad(loss))(tree)


@pytest.mark.parametrize(
  ("family", "make", "options"),
  [
    ("llama", adapted_av, dict(remat=True, inject_mode=REPLACE)),
    ("qwen2", adapted_av, dict(inject_mode=ADD, lora=Lora(2, 1.0, ("query", "down")))),
    ("gemma3_text", adapted_av, dict(remat=True, inject_mode=ADD)),
    ("qwen3", adapted_ar, dict()),
  ],
)
def test_an_adapted_model_equals_the_merged_one_with_its_gradients(
  base_of, relative_error, family, make, options
):
  """The AR's base has one block more than the AR, and nothing is computed in it."""
  model, params = make(*base_of(family), **options)
  loss, grads = loss_and_gradient(model, params)
  merge = functools.partial(merged, lora=model.lora)
  expected_loss, expected = loss_and_gradient(plain(model), params, whole=merge)

  assert float(loss) == pytest.approx(float(expected_loss), rel=1e-4)
  for (path, found), wanted in zip(
    jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
  ):
    assert np.any(wanted), jax.tree_util.keystr(path)
    assert relative_error(found, wanted) < 1e-4, jax.tree_util.keystr(path)


def test_in_bfloat16_an_adapted_model_is_as_near_to_float32_as_a_merged_one(base_of):
  model, params = adapted_av(*base_of("qwen2"), dtype=jnp.bfloat16)
  merge = functools.partial(merged, lora=model.lora)
  _, exact = loss_and_gradient(plain(model), params, whole=merge)
  _, rounded = loss_and_gradient(model.clone(lora=None), params, whole=merge)
  _, found = loss_and_gradient(model, params)

  def distance(gradient):
    difference = jax.tree.map(jnp.subtract, gradient, exact)
    return float(optax.global_norm(difference) / optax.global_norm(exact))

  # The products that are rounded are others, so the errors are alike and not equal.
  assert 0 < distance(found) < 1.5 * distance(rounded) < 0.3


@pytest.mark.parametrize("make", [adapted_av, adapted_ar])
def test_fresh_adapters_are_the_base_exactly(base_of, make):
  model, params = make(*base_of("gemma3_text"), fresh=True)
  expected = apply(plain(model), merged(params, model.lora))
  np.testing.assert_array_equal(apply(model, params), expected)


def test_only_the_targets_have_adapters_of_the_rank(base_of):
  architecture, _ = base_of("llama")
  lora = Lora(3, 6.0, ("value", "output"))
  layers = adapter_params(architecture, lora, jax.random.key(0))["layers"]
  assert lora.scale == 2.0
  assert {name: leaf.shape for name, leaf in layers.items()} == {
    "value_lora_a": (3, 32, 3),
    "value_lora_b": (3, 3, 2, 8),
    "output_lora_a": (3, 4, 8, 3),
    "output_lora_b": (3, 3, 32),
  }
  # PEFT's start: B is zero, A uniform within one over the root of its inputs, another draw in every block.
  a, b = layers["value_lora_a"], layers["value_lora_b"]
  assert not np.any(b) and 0.8 * 32**-0.5 < np.abs(a).max() <= 32**-0.5
  assert not np.array_equal(a[0], a[1])


def test_merging_adds_the_scaled_product_and_leaves_the_rest(base_of):
  architecture, base = base_of("qwen2")
  model, params = adapted_av(architecture, base, Lora(4, 8.0, ("output",)))
  found = without_adapters(params, model)["transformer"]
  untouched = jax.tree.map(from_bits, base["layers"])
  a, b = (np.asarray(params["transformer"]["layers"][name], np.float64) for name in names("output"))
  added = np.einsum("lhkr,lrd->lhkd", a, b) * 2.0
  difference = found["layers"]["output"] - untouched["output"].astype(jnp.float32)
  np.testing.assert_allclose(difference, added, atol=1e-6)
  for name in set(TARGETS) - {"output"}:
    np.testing.assert_array_equal(found["layers"][name], untouched[name].astype(jnp.float32))


def test_merging_an_ar_leaves_the_blocks_above_it_out(base_of):
  model, params = adapted_ar(*base_of("llama"))
  found = without_adapters(params, model)
  assert found.keys() == {"transformer", "head"}
  assert found["transformer"].keys() == {"embedding", "layers"}
  assert {len(leaf) for leaf in found["transformer"]["layers"].values()} == {2}
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def test_what_is_taken_apart_is_put_together_again(base_of):
  model, params = adapted_ar(*base_of("llama"))
  tree, base = split(params)
  assert base is params["base"] and tree.keys() == {"transformer", "head"}
  assert joined(tree, base) == params
  # Where every weight is trained there is no base, and nothing to merge.
  assert split(tree) == (tree, None) and joined(tree, None) is tree
  assert without_adapters(tree, plain(model)) is tree


def test_both_models_stand_on_the_same_buffers(base_of):
  architecture, base = base_of("llama")
  av, ar = adapted_av(architecture, base)[1], adapted_ar(architecture, base)[1]
  assert av["base"] is ar["base"] is base
  matrices = [base["embedding"], base["unembedding"], *(base["layers"][name] for name in TARGETS)]
  assert {leaf.dtype for leaf in matrices} == {jnp.dtype("uint16")}  # bfloat16, on CPUs as bits


def _body(scan):
  """The jaxpr of one step."""
  return getattr(scan.params["jaxpr"], "jaxpr", scan.params["jaxpr"])


@pytest.mark.parametrize("make", [adapted_av, adapted_ar])
def test_a_kept_backward_pass_keeps_no_copy_of_the_base(base_of, make):
  """Blocks are not computed again here: what the scan keeps of each block has the base in it nowhere."""
  architecture, base = base_of("llama")
  model, params = make(architecture, base)
  tree, base = split(params)

  def loss(tree):
    return jnp.sum(apply(model, joined(tree, base)))

  stacks = {leaf.shape for leaf in base["layers"].values()}
  kept = [
    (one.aval.shape, one.aval.dtype)
    for jaxpr in _inside(jax.make_jaxpr(jax.grad(loss))(tree).jaxpr)
    for equation in jaxpr.eqns
    if equation.primitive.name == "scan"
    for one, of_a_block in zip(equation.outvars, _body(equation).outvars, strict=True)
    if one.aval.shape != of_a_block.aval.shape  # stacked over blocks, and no carry
  ]
  assert kept
  # Neither a stack for each block, nor each block's matrix once more.
  matrices = [base["layers"][name] for name in TARGETS]
  slices = {leaf.shape[1:] for leaf in matrices}
  assert not [one for one in kept if one[0][1:] in stacks]
  assert not [one for one in kept if one[0][1:] in slices and one[1] != jnp.float32]


def _inside(jaxpr):
  """A jaxpr and all that its equations hold."""
  yield jaxpr
  for equation in jaxpr.eqns:
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _inside(inner)
